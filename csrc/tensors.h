// A quick look at the tensors of a call, through the exchange API of DLPack 1.3 (dmlc.github.io/dlpack), which torch
// offers without being linked. Whatever is unusual is left to Python, which finds out what it is.
#pragma once
#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

namespace cube {

namespace py = pybind11;

// The layouts of DLPack's dlpack.h, of as much of it as is used here.
struct DLTensor {
  void* data;
  int32_t device_type;
  int32_t device_id;
  int32_t dimensions;
  uint8_t type_code;
  uint8_t type_bits;
  uint16_t type_lanes;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};

struct DLExchangeAPI {
  uint32_t major_version;
  uint32_t minor_version;
  void* previous;
  void* allocate;
  void* to_managed;
  void* from_managed;
  int (*view)(void* tensor, DLTensor* out);
  void* current_stream;
};

enum class Look : int { odd, frozen, trained };

class TensorReader {
 public:
  // `kinds`: the classes whose tensors are known to be what they look like; the first is torch.Tensor. Reads none if
  // its exchange API is of another version than this knows.
  explicit TensorReader(std::vector<py::type> kinds) : kinds_(std::move(kinds)) {
    const py::object found = py::getattr(kinds_.at(0), "__dlpack_c_exchange_api__", py::none());
    if (!PyCapsule_IsValid(found.ptr(), "dlpack_exchange_api")) return;
    const auto* api = static_cast<const DLExchangeAPI*>(PyCapsule_GetPointer(found.ptr(), "dlpack_exchange_api"));
    if (api->major_version == 1) api_ = api;
  }

  // Whether all are dense, contiguous, in memory of their own, of the dtype and on the device of the first, and of
  // these shapes; the last, a mask, is of bytes that are 0 or 1. None is where the shape is None, and where there is no
  // mask. A size of -1 is the batch, or 1 but in the first.
  Look look(const py::tuple& tensors, const py::tuple& shapes) const {
    if (api_ == nullptr || tensors.size() != shapes.size()) return Look::odd;
    bool trained = false;
    DLTensor first{}, tensor{};
    for (size_t i = 0; i < tensors.size(); ++i) {
      const bool mask = i + 1 == tensors.size();
      const py::handle object = tensors[i], shape = shapes[i];
      if (object.is_none()) {
        if (!mask && !shape.is_none()) return Look::odd;
        continue;
      }
      if (shape.is_none() || !read(object, tensor)) return Look::odd;
      if (i == 0) {
        first = tensor;
        if (!known_type(first)) return Look::odd;
      }
      const bool fits = mask ? tensor.type_code == boolean && tensor.type_bits == 8
                             : tensor.type_code == first.type_code && tensor.type_bits == first.type_bits;
      if (!fits || tensor.device_type != first.device_type || tensor.device_id != first.device_id) return Look::odd;
      if (!has_shape(tensor, shape, first.dimensions > 0 ? first.shape[0] : 0, i == 0)) return Look::odd;
      trained = trained || is_true(object, requires_grad_);
    }
    return trained ? Look::trained : Look::frozen;
  }

 private:
  static constexpr uint8_t floating = 2, bfloat = 4, boolean = 6;  // DLPack's type codes

  bool read(py::handle object, DLTensor& tensor) const {
    bool known = false;
    for (const py::type& kind : kinds_) known = known || kind.is(py::type::handle_of(object));
    if (!known) return false;
    if (api_->view(object.ptr(), &tensor) != 0) {  // such as a wrapper of a transform
      PyErr_Clear();
      return false;
    }
    int64_t stride = 1;
    for (int32_t d = tensor.dimensions - 1; d >= 0; --d) {
      if (tensor.shape[d] == 0) return tensor.byte_offset == 0;  // nothing to read
      if (tensor.shape[d] != 1 && tensor.strides != nullptr && tensor.strides[d] != stride) return false;
      stride *= tensor.shape[d];
    }
    return tensor.data != nullptr && tensor.byte_offset == 0 && !answers_true(object, is_neg_);
  }

  static py::str interned(const char* name) { return py::reinterpret_steal<py::str>(PyUnicode_InternFromString(name)); }

  static bool known_type(const DLTensor& tensor) {
    if (tensor.type_lanes != 1) return false;
    const uint8_t bits = tensor.type_bits;
    return (tensor.type_code == floating && (bits == 16 || bits == 32 || bits == 64)) ||
           (tensor.type_code == bfloat && bits == 16);
  }

  static bool has_shape(const DLTensor& tensor, py::handle expected, int64_t batch, bool is_first) {
    if (PyTuple_GET_SIZE(expected.ptr()) != tensor.dimensions) return false;
    for (int32_t d = 0; d < tensor.dimensions; ++d) {
      const int64_t size = PyLong_AsLongLong(PyTuple_GET_ITEM(expected.ptr(), d));
      const bool is_batch = size < 0 && (tensor.shape[d] == batch || (!is_first && tensor.shape[d] == 1));
      if (!is_batch && tensor.shape[d] != size) return false;
    }
    return true;
  }

  static bool is_true(py::handle object, const py::str& attribute) { return object.attr(attribute).ptr() == Py_True; }

  static bool answers_true(py::handle object, const py::str& method) {
    const py::object answer = py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(object.ptr(), method.ptr()));
    if (!answer) throw py::error_already_set();
    return answer.ptr() == Py_True;
  }

  std::vector<py::type> kinds_;
  py::str requires_grad_ = interned("requires_grad"), is_neg_ = interned("is_neg");
  const DLExchangeAPI* api_ = nullptr;
};

}  // namespace cube
