export {
  BoxGeometry, BufferAttribute, BufferGeometry, EdgesGeometry, LinearSRGBColorSpace, LineBasicMaterial, LineSegments,
  Mesh, MeshBasicMaterial, PerspectiveCamera, Scene, WebGLRenderer,
} from "three";
export {OrbitControls} from "three/examples/jsm/controls/OrbitControls.js";
