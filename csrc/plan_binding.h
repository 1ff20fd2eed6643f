// A plan as the Python modules see it: made from plain numbers, one group of a rule's switches after the other.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "plan_memory.h"

namespace cube {

template <class E>
std::vector<std::string> names() {
  std::vector<std::string> result;
  std::istringstream all(Names<E>::all);
  for (std::string name; std::getline(all >> std::ws, name, ',');) result.push_back(name);
  return result;
}

template <class E>
E named(const std::string& name) {
  static const std::vector<std::string> known = names<E>();
  const auto found = std::find(known.begin(), known.end(), name);
  if (found == known.end()) {
    throw std::invalid_argument("cube_kernels: " + std::string(Names<E>::kind) + " is '" + name +
                                "'; this build knows: " + Names<E>::all);
  }
  return static_cast<E>(found - known.begin());
}

// What a call takes in a tensor's place: where its numbers begin, or null for None.
struct TensorAddress {
  void* first = nullptr;

  template <class T>
  operator T*() const {
    return static_cast<T*>(first);
  }
};

// Of a rule's weights or of their gradients.
using WeightAddresses = std::array<TensorAddress, 6>;

inline RuleWeights rule_weights(const WeightAddresses& p) { return {p[0], p[1], p[2], p[3], p[4], p[5]}; }
inline RuleGradients rule_gradients(const WeightAddresses& p) { return {p[0], p[1], p[2], p[3], p[4], p[5]}; }

class BoundPlan {
 public:
  using Offsets = std::vector<std::array<int32_t, 3>>;

  BoundPlan(const std::array<int32_t, 3>& shape, int32_t channels, const Offsets& offsets,
            std::array<std::vector<int32_t>, 3> axis_targets, const std::string& perception, int32_t filters)
      : memory_(shape, channels, offsets, std::move(axis_targets), named<Perception>(perception), filters) {}

  void set_rule(bool own_state, int32_t drive, int32_t inputs, int32_t hidden, const std::string& activation,
                const std::string& squash, const std::string& update, double step_size) {
    plan_.own_state = own_state;
    plan_.drive = drive;
    plan_.inputs = inputs;
    plan_.hidden = hidden;
    plan_.activation = named<Activation>(activation);
    plan_.squash = named<Squash>(squash);
    plan_.update = named<Update>(update);
    plan_.step_size = step_size;
  }

  void set_fire(uint64_t threshold, double scale) {
    plan_.fire_threshold = threshold;
    plan_.fire_scale = scale;
  }

  void set_clamp(double low, double high) {
    plan_.clamps = true;
    plan_.low = low;
    plan_.high = high;
  }

  void set_retention(const std::array<std::vector<double>, 3>& axes) { memory_.set_retention(axes); }

  void set_window(const std::array<std::vector<int32_t>, 3>& places,
                  const std::array<std::vector<int32_t>, 3>& lifetimes, const std::array<int64_t, 3>& whole) {
    memory_.set_window(places, lifetimes, whole);
  }

  void set_immutable(const std::vector<int32_t>& channels) { memory_.set_immutable(channels); }

  void set_alive(int32_t channel, double threshold, bool before, bool after, double dead_value,
                 const Offsets& offsets) {
    plan_.alive_channel = channel;
    plan_.alive_threshold = threshold;
    plan_.alive_before = before;
    plan_.alive_after = after;
    plan_.dead_value = dead_value;
    memory_.set_pool(offsets);
  }

 protected:
  PlanMemory memory_;
  Plan& plan_ = memory_.plan;
};

// The class `Plan` of a module, ready for what else the module's plans can do, and the names that they take.
template <class P>
pybind11::class_<P> bind_plan(pybind11::module_& m) {
  namespace py = pybind11;
  py::dict known;
  known["perception"] = names<Perception>();
  known["activation"] = names<Activation>();
  known["squash"] = names<Squash>();
  known["update"] = names<Update>();
  m.attr("names") = known;
  m.attr("storages") = names<Storage>();
  py::class_<P> plan(m, "Plan", py::module_local());
  plan.def(py::init<const std::array<int32_t, 3>&, int32_t, const BoundPlan::Offsets&,
                    std::array<std::vector<int32_t>, 3>, const std::string&, int32_t>(),
           py::kw_only(), py::arg("shape"), py::arg("channels"), py::arg("offsets"), py::arg("axis_targets"),
           py::arg("perception"), py::arg("filters"))
      .def("set_rule", &P::set_rule, py::kw_only(), py::arg("own_state"), py::arg("drive"), py::arg("inputs"),
           py::arg("hidden"), py::arg("activation"), py::arg("squash"), py::arg("update"), py::arg("step_size"))
      .def("set_fire", &P::set_fire, py::kw_only(), py::arg("threshold"), py::arg("scale"))
      .def("set_clamp", &P::set_clamp)
      .def("set_retention", &P::set_retention)
      .def("set_window", &P::set_window, py::kw_only(), py::arg("places"), py::arg("lifetimes"), py::arg("whole"))
      .def("set_immutable", &P::set_immutable)
      .def("set_alive", &P::set_alive, py::kw_only(), py::arg("channel"), py::arg("threshold"), py::arg("before"),
           py::arg("after"), py::arg("dead_value"), py::arg("offsets"));
  return plan;
}

}  // namespace cube

namespace pybind11::detail {

template <>
struct type_caster<cube::TensorAddress> {
  PYBIND11_TYPE_CASTER(cube::TensorAddress, const_name("Tensor | None"));

  bool load(handle tensor, bool) {
    if (tensor.is_none()) return true;
    static PyObject* const data_ptr = PyUnicode_InternFromString("data_ptr");
    const object address = reinterpret_steal<object>(PyObject_CallMethodNoArgs(tensor.ptr(), data_ptr));
    if (!address) throw error_already_set();
    value.first = PyLong_AsVoidPtr(address.ptr());
    return true;
  }
};

}  // namespace pybind11::detail
