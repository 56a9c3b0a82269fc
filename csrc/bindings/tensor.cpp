#include "tensor.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>

#include "../cuda.h"

namespace gantrt {
namespace {

// The ABI of DLPack 1.x (https://dmlc.github.io/dlpack/latest/c_api.html), as far as we read it.
struct DLTensor {
  void* data;
  int32_t device_type;
  int32_t device_id;
  int32_t ndim;
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
  int64_t* shape;
  int64_t* strides;  // in elements; null: C order
  uint64_t byte_offset;
};

struct DLManagedTensor {
  DLTensor tensor;
  void* context;
  void (*deleter)(DLManagedTensor*);
};

struct DLManagedTensorVersioned {
  uint32_t major, minor;
  void* context;
  void (*deleter)(DLManagedTensorVersioned*);
  uint64_t flags;
  DLTensor tensor;
};

constexpr int32_t kDLCPU = 1, kDLCUDA = 2, kDLCUDAHost = 3, kDLCUDAManaged = 13;
constexpr uint8_t kDLUInt = 1, kDLFloat = 2, kDLBfloat = 4, kDLBool = 6;
constexpr uint64_t kDLReadOnly = 1;

[[noreturn]] void refuse(const char* who, const char* what, const std::string& why) {
  throw std::invalid_argument(std::string(who) + ": " + what + " " + why);
}

void set_shape(TensorView& view, const char* who, const char* what, int64_t rank, const int64_t* shape) {
  if (rank < 1 || rank > TensorView::kMaxRank)
    refuse(who, what, "must have 1 to 4 axes, got " + std::to_string(rank));
  int64_t elements = 1;
  view.rank = static_cast<int>(rank);
  for (int axis = 0; axis < view.rank; ++axis) {
    view.shape[axis] = shape[axis];
    if (shape[axis] < 0 || __builtin_mul_overflow(elements, shape[axis], &elements) ||
        elements > (int64_t{1} << 48))
      refuse(who, what, "has no shape memory can have: " + text_of(shape, view.rank));
  }
}

void set_c_strides(TensorView& view) {
  int64_t stride = 1;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    view.stride[axis] = stride;
    stride *= view.shape[axis];
  }
}

void set_byte_stride(TensorView& view, const char* who, const char* what, int axis, int64_t bytes) {
  const int64_t item = size_of(view.dtype);
  if (bytes % item != 0)
    refuse(who, what,
           "has a stride of " + std::to_string(bytes) + " bytes, no multiple of its " + std::to_string(item) +
               "-byte elements; pass a contiguous copy");
  view.stride[axis] = bytes / item;
}

// From NumPy's letter for the kind of a dtype; `name` is what to call it in the refusal.
template <class Name>
DType dtype_of(const char* who, const char* what, char kind, int64_t bytes, const Name& name) {
  if (kind == 'f' && bytes == 4) return DType::kFloat32;
  if (kind == 'f' && bytes == 2) return DType::kFloat16;
  if (kind == 'u' && bytes == 1) return DType::kUInt8;
  refuse(who, what, "must be uint8, float16, bfloat16 or float32, got " + std::string(name()));
}

void check_data(const TensorView& view, const char* who, const char* what) {
  bool empty = false;
  for (int axis = 0; axis < view.rank; ++axis) empty = empty || view.shape[axis] == 0;
  if (empty) refuse(who, what, "must not be empty, got shape " + shape_of(view));
  if (view.data == nullptr) refuse(who, what, "has no memory behind it");
  if (reinterpret_cast<uintptr_t>(view.data) % size_of(view.dtype) != 0)
    refuse(who, what, "is not aligned to its elements; pass a copy");
}

Borrowed from_numpy(const py::array& array, const char* who, const char* what) {
  Borrowed borrowed;
  borrowed.object = array;
  borrowed.read_only = !array.writeable();
  const py::dtype dtype = array.dtype();
  const char order = dtype.byteorder();
  if (order != '=' && order != '|' && order != '<') refuse(who, what, "must be in native byte order");
  borrowed.view.dtype = dtype_of(who, what, dtype.kind(), dtype.itemsize(), [&]() -> std::string {
    return py::str(static_cast<const py::object&>(dtype));
  });
  std::vector<int64_t> shape(array.shape(), array.shape() + array.ndim());
  set_shape(borrowed.view, who, what, array.ndim(), shape.data());
  for (int axis = 0; axis < borrowed.view.rank; ++axis)
    set_byte_stride(borrowed.view, who, what, axis, array.strides(axis));
  borrowed.view.data = const_cast<void*>(array.data());
  return borrowed;
}

void fill_from_dlpack(TensorView& view, const DLTensor& tensor, const char* who, const char* what) {
  if (tensor.device_type == kDLCUDA || tensor.device_type == kDLCUDAManaged)
    view.device = {DeviceType::kCuda, tensor.device_id};
  else if (tensor.device_type != kDLCPU && tensor.device_type != kDLCUDAHost)
    refuse(
        who, what,
        "must lie on the CPU or a CUDA device, got DLPack device type " + std::to_string(tensor.device_type));
  const int bits = tensor.bits;
  if (tensor.lanes != 1) refuse(who, what, "must have scalar elements");
  if (tensor.code == kDLFloat && bits == 32)
    view.dtype = DType::kFloat32;
  else if (tensor.code == kDLFloat && bits == 16)
    view.dtype = DType::kFloat16;
  else if (tensor.code == kDLBfloat && bits == 16)
    view.dtype = DType::kBFloat16;
  else if (tensor.code == kDLUInt && bits == 8)
    view.dtype = DType::kUInt8;
  else {
    const char* kind = tensor.code == 0           ? "int"
                       : tensor.code == kDLUInt   ? "uint"
                       : tensor.code == kDLFloat  ? "float"
                       : tensor.code == kDLBfloat ? "bfloat"
                       : tensor.code == kDLBool   ? "bool"
                                                  : "DLPack type code ";
    refuse(who, what,
           "must be uint8, float16, bfloat16 or float32, got " + std::string(kind) + std::to_string(bits));
  }
  if (tensor.shape == nullptr && tensor.ndim > 0) refuse(who, what, "says nothing of its shape");
  set_shape(view, who, what, tensor.ndim, tensor.shape);
  if (tensor.strides == nullptr)
    set_c_strides(view);
  else
    std::copy(tensor.strides, tensor.strides + view.rank, view.stride);
  if (tensor.data != nullptr)  // else check_data says so, whatever the offset
    view.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
}

template <class Managed>
std::shared_ptr<void> take(py::capsule& capsule, const char* used) {
  auto* managed = static_cast<Managed*>(capsule.get_pointer());
  if (PyCapsule_SetName(capsule.ptr(), used) != 0) throw py::error_already_set();
  return std::shared_ptr<void>(managed, [](void* held) {
    auto* tensor = static_cast<Managed*>(held);
    if (tensor->deleter) tensor->deleter(tensor);
  });
}

std::string message_of(const py::error_already_set& error) { return py::str(error.value()); }

std::pair<int32_t, int32_t> dlpack_device(py::handle object, const char* who, const char* what) {
  try {
    return object.attr("__dlpack_device__")().cast<std::pair<int32_t, int32_t>>();
  } catch (const py::cast_error&) {
    refuse(who, what, "does not say on which device it lies: __dlpack_device__ gives no pair of numbers");
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_Exception)) throw;
    refuse(who, what, "does not say on which device it lies: " + message_of(error));
  }
}

Borrowed from_dlpack(py::handle object, const char* who, const char* what) {
  const py::object share = object.attr("__dlpack__");
  py::dict wishes;
  const auto device = dlpack_device(object, who, what);
  if (device.first == kDLCUDA || device.first == kDLCUDAManaged)
    wishes["stream"] = -1;  // nothing to wait for
  py::object given;
  try {
    given = share(py::arg("max_version") = py::make_tuple(1, 0), **wishes);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) refuse(who, what, "cannot be shared: " + message_of(error));
    given = share(**wishes);  // a producer older than DLPack 1.0
  }
  py::capsule capsule = py::reinterpret_borrow<py::capsule>(given);
  Borrowed borrowed;
  borrowed.object = py::reinterpret_borrow<py::object>(object);
  const char* name = PyCapsule_IsValid(given.ptr(), "dltensor_versioned") ? "dltensor_versioned" : "dltensor";
  if (!PyCapsule_IsValid(given.ptr(), name)) refuse(who, what, "gave no DLPack capsule");
  if (std::strcmp(name, "dltensor") == 0) {
    borrowed.managed = take<DLManagedTensor>(capsule, "used_dltensor");
    fill_from_dlpack(borrowed.view, static_cast<DLManagedTensor*>(borrowed.managed.get())->tensor, who, what);
    return borrowed;
  }
  borrowed.managed = take<DLManagedTensorVersioned>(capsule, "used_dltensor_versioned");
  const auto* managed = static_cast<DLManagedTensorVersioned*>(borrowed.managed.get());
  if (managed->major != 1)
    refuse(who, what, "speaks DLPack " + std::to_string(managed->major) + ", we speak 1");
  borrowed.read_only = (managed->flags & kDLReadOnly) != 0;
  fill_from_dlpack(borrowed.view, managed->tensor, who, what);
  return borrowed;
}

Borrowed read_cuda_array_interface(py::handle object, const char* who, const char* what) {
  const auto facts = object.attr("__cuda_array_interface__").cast<py::dict>();
  Borrowed borrowed;
  borrowed.object = py::reinterpret_borrow<py::object>(object);
  const auto data = facts["data"].cast<py::tuple>();
  borrowed.view.data = reinterpret_cast<void*>(data[0].cast<uintptr_t>());
  borrowed.read_only = data[1].cast<bool>();
  const auto type = facts["typestr"].cast<std::string>();
  if (type.size() < 3 || type[0] == '>') refuse(who, what, "must be in native byte order, got " + type);
  borrowed.view.dtype =
      dtype_of(who, what, type[1], std::atoi(type.c_str() + 2), [&]() -> std::string { return type; });
  std::vector<int64_t> shape;
  for (py::handle extent : facts["shape"].cast<py::tuple>()) shape.push_back(extent.cast<int64_t>());
  set_shape(borrowed.view, who, what, static_cast<int64_t>(shape.size()), shape.data());
  set_c_strides(borrowed.view);
  if (facts.contains("strides") && !facts["strides"].is_none()) {
    const auto strides = facts["strides"].cast<py::tuple>();
    if (static_cast<int>(strides.size()) != borrowed.view.rank)
      refuse(who, what, "has strides for another rank");
    for (int axis = 0; axis < borrowed.view.rank; ++axis)
      set_byte_stride(borrowed.view, who, what, axis, strides[axis].cast<int64_t>());
  }
  borrowed.view.device = {DeviceType::kCuda, cuda_device_of(borrowed.view.data)};
  return borrowed;
}

Borrowed from_cuda_array_interface(py::handle object, const char* who, const char* what) {
  const std::string none = "has a __cuda_array_interface__ that is none: ";
  try {
    return read_cuda_array_interface(object, who, what);
  } catch (const py::cast_error& error) {
    refuse(who, what, none + error.what());
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_Exception)) throw;
    refuse(who, what, none + message_of(error));
  }
}

// "torch", "cupy", "numpy", ...: the package whose type this is.
std::string package_of(py::handle object) {
  const auto module = py::type::handle_of(object).attr("__module__").cast<std::string>();
  return module.substr(0, module.find('.'));
}

}  // namespace

Borrowed borrow(py::handle object, const char* who, const char* what) {
  Borrowed borrowed;
  if (py::isinstance<py::array>(object))
    borrowed = from_numpy(py::reinterpret_borrow<py::array>(object), who, what);
  else if (py::hasattr(object, "__dlpack__"))
    borrowed = from_dlpack(object, who, what);
  else if (py::hasattr(object, "__cuda_array_interface__"))
    borrowed = from_cuda_array_interface(object, who, what);
  else if (PyObject_CheckBuffer(object.ptr()))
    borrowed = from_numpy(py::module_::import("numpy").attr("asarray")(object), who, what);
  else
    refuse(who, what,
           "must be an array (numpy, DLPack or __cuda_array_interface__), got " +
               py::type::handle_of(object).attr("__name__").cast<std::string>());
  check_data(borrowed.view, who, what);
  return borrowed;
}

void check_writable(const Borrowed& array, const char* who, const char* what) {
  if (array.read_only) refuse(who, what, "is read-only; give one that may be written");
}

py::object empty_like(const Borrowed& like, const std::vector<int64_t>& shape, DType dtype, const char* who) {
  const std::string package = package_of(like.object);
  const py::tuple size = py::cast(shape);
  if (package == "torch") {
    const py::object type = py::module_::import("torch").attr(name_of(dtype));
    return like.object.attr("new_empty")(size, py::arg("dtype") = type);
  }
  if (like.view.device.type == DeviceType::kCpu)
    return py::module_::import("numpy").attr("empty")(size, name_of(dtype));
  if (package == "cupy") return py::module_::import("cupy").attr("empty")(size, name_of(dtype));
  throw std::invalid_argument(std::string(who) + ": cannot make a device array of type " + package +
                              "; give one as out=");
}

Stream stream_for(const Borrowed& array, py::handle stream) {
  const auto from = [](const py::object& address) {
    return reinterpret_cast<Stream>(address.cast<uintptr_t>());
  };
  if (array.view.device.type == DeviceType::kCpu) return nullptr;
  if (!stream.is_none()) return from(py::reinterpret_borrow<py::object>(stream));
  const std::string package = package_of(array.object);
  if (package == "torch")
    return from(py::module_::import("torch.cuda")
                    .attr("current_stream")(array.object.attr("device"))
                    .attr("cuda_stream"));
  if (package == "cupy")
    return from(py::module_::import("cupy.cuda").attr("get_current_stream")().attr("ptr"));
  return nullptr;
}

}  // namespace gantrt
