// NormAct as a TensorRT plugin in C++: the twin of python/gantrt/plans/norm_act.py, for programs without
// Python (trtexec --dynamicPlugins, Triton). Built only where CMake finds TensorRT's headers; it links no
// library of TensorRT.
#include <NvInfer.h>

#include <cstring>
#include <new>
#include <vector>

#include "../kernels/norm_act.h"

namespace gantrt {
namespace {

using namespace nvinfer1;

constexpr const char *kName = "NormAct", *kNamespace = "gantrt", *kVersion = "1";
constexpr int64_t kGroup = 8;  // channels that HWC8 keeps together

// What a node says. Its inputs are x, scale, shift, rho if it is mixed, and the residual if there is one.
struct Attributes {
  float eps = 1e-5f, slope = 1.0f;
  int32_t unbiased = 0, pad = 0, rpad = 0, mixed = 0;
};

bool dtype_of(DataType type, DType* dtype) {
  switch (type) {
    case DataType::kFLOAT:
      *dtype = DType::kFloat32;
      return true;
    case DataType::kHALF:
      *dtype = DType::kFloat16;
      return true;
    case DataType::kBF16:
      *dtype = DType::kBFloat16;
      return true;
    default:
      return false;
  }
}

// The one format a picture may have. Offered a choice, a builder that cannot measure takes planes.
TensorFormat format_of(const PluginTensorDesc& desc) {
  if (desc.type == DataType::kFLOAT) return TensorFormat::kHWC;
  return desc.dims.d[1] % kGroup ? TensorFormat::kLINEAR : TensorFormat::kHWC8;
}

TensorView view_of(const void* data, DType dtype, const std::vector<int64_t>& shape) {
  TensorView view;
  view.data = const_cast<void*>(data);
  view.dtype = dtype;
  view.device = {DeviceType::kCuda, 0};  // the current one, which is TensorRT's affair
  for (int64_t extent : shape) view.shape[view.rank++] = extent;
  int64_t stride = 1;
  for (int axis = view.rank - 1; axis >= 0; stride *= view.shape[axis--]) view.stride[axis] = stride;
  return view;
}

class NormActPlugin final : public IPluginV3,
                            public IPluginV3OneCore,
                            public IPluginV3OneBuild,
                            public IPluginV3OneRuntime {
 public:
  explicit NormActPlugin(const Attributes& attributes) : a_(attributes) {
    fields_ = {{"eps", &a_.eps, PluginFieldType::kFLOAT32, 1},
               {"slope", &a_.slope, PluginFieldType::kFLOAT32, 1},
               {"unbiased", &a_.unbiased, PluginFieldType::kINT32, 1},
               {"pad", &a_.pad, PluginFieldType::kINT32, 1},
               {"rpad", &a_.rpad, PluginFieldType::kINT32, 1},
               {"mixed", &a_.mixed, PluginFieldType::kINT32, 1}};
    collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
  }

  IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE:
        return static_cast<IPluginV3OneCore*>(this);
      case PluginCapabilityType::kBUILD:
        return static_cast<IPluginV3OneBuild*>(this);
      case PluginCapabilityType::kRUNTIME:
        return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }

  IPluginV3* clone() noexcept override {
    auto* copy = new (std::nothrow) NormActPlugin(a_);
    if (copy) copy->has_residual_ = has_residual_;
    return copy;
  }
  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  // While a plan is built

  int32_t getNbOutputs() const noexcept override { return 1; }

  int32_t configurePlugin(const DynamicPluginTensorDesc*, int32_t, const DynamicPluginTensorDesc*,
                          int32_t) noexcept override {
    return 0;
  }

  int32_t getOutputDataTypes(DataType* made, int32_t, const DataType* taken,
                             int32_t) const noexcept override {
    made[0] = taken[0];
    return 0;
  }

  int32_t getOutputShapes(const DimsExprs* inputs, int32_t, const DimsExprs*, int32_t, DimsExprs* outputs,
                          int32_t, IExprBuilder& build) noexcept override {
    outputs[0] = inputs[0];
    const IDimensionExpr* border = build.constant(2 * a_.pad);
    for (int axis : {2, 3})
      outputs[0].d[axis] = build.operation(DimensionOperation::kSUM, *inputs[0].d[axis], *border);
    return 0;
  }

  bool supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors, int32_t,
                                 int32_t) noexcept override {
    const PluginTensorDesc &desc = tensors[position].desc, &x = tensors[0].desc;
    DType dtype;
    if (desc.dims.nbDims != 4)  // scale, shift, rho
      return desc.type == DataType::kFLOAT && desc.format == TensorFormat::kLINEAR;
    return dtype_of(desc.type, &dtype) && desc.type == x.type && desc.format == format_of(desc);
  }

  size_t getWorkspaceSize(const DynamicPluginTensorDesc* inputs, int32_t, const DynamicPluginTensorDesc*,
                          int32_t) const noexcept override {
    return inputs[0].max.d[0] * inputs[0].max.d[1] * kNormActWorkspacePerPlane;
  }

  // While it runs

  int32_t onShapeChange(const PluginTensorDesc*, int32_t inputs, const PluginTensorDesc*,
                        int32_t) noexcept override {
    has_residual_ = inputs > 3 + a_.mixed;
    return 0;
  }

  IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }
  const PluginFieldCollection* getFieldsToSerialize() noexcept override { return &collection_; }

  int32_t enqueue(const PluginTensorDesc* taken, const PluginTensorDesc*, const void* const* inputs,
                  void* const* outputs, void* workspace, cudaStream_t stream) noexcept override {
    const PluginTensorDesc& desc = taken[0];
    const int64_t n = desc.dims.d[0], c = desc.dims.d[1], h = desc.dims.d[2], w = desc.dims.d[3];
    DType dtype;
    if (!dtype_of(desc.type, &dtype)) return 1;
    NormActOptions options;
    options.eps = a_.eps;
    options.act.slope = a_.slope;
    options.unbiased = a_.unbiased != 0;
    options.pad = a_.pad;
    options.rpad = a_.rpad;
    options.layout = desc.format == TensorFormat::kLINEAR ? Layout::kNchw : Layout::kNhwc;
    const auto picture = [&](const void* data, int64_t border) {
      const int64_t high = h + 2 * border, wide = w + 2 * border;
      return options.layout == Layout::kNchw ? view_of(data, dtype, {n, c, high, wide})
                                             : view_of(data, dtype, {n, high, wide, c});
    };
    const bool per_sample = taken[1].dims.nbDims == 2;
    const auto parameter = [&](const void* data) {
      return view_of(data, DType::kFloat32,
                     per_sample ? std::vector<int64_t>{n, c} : std::vector<int64_t>{c});
    };
    try {
      NormActInputs in;
      in.x = picture(inputs[0], 0);
      in.scale = parameter(inputs[1]);
      in.shift = parameter(inputs[2]);
      if (a_.mixed) in.rho = view_of(inputs[3], DType::kFloat32, {c});
      if (has_residual_) in.residual = picture(inputs[3 + a_.mixed], a_.rpad);
      norm_act(in, options, picture(outputs[0], a_.pad), 0, workspace, stream);
      return 0;
    } catch (const std::exception&) {  // none may cross TensorRT's code
      return 1;
    }
  }

 private:
  Attributes a_;
  bool has_residual_ = false;  // known by the number of inputs, which TensorRT tells before it runs
  std::vector<PluginField> fields_;
  PluginFieldCollection collection_{};
};

class NormActCreator final : public IPluginCreatorV3One {
 public:
  IPluginV3* createPlugin(const char*, const PluginFieldCollection* given, TensorRTPhase) noexcept override {
    Attributes a;
    for (int32_t i = 0; i < given->nbFields; ++i) {
      const PluginField& field = given->fields[i];
      const auto read = [&](const char* name, void* value) {
        if (std::strcmp(field.name, name) == 0 && field.data) std::memcpy(value, field.data, 4);
      };
      read("eps", &a.eps);
      read("slope", &a.slope);
      read("unbiased", &a.unbiased);
      read("pad", &a.pad);
      read("rpad", &a.rpad);
      read("mixed", &a.mixed);
    }
    return new (std::nothrow) NormActPlugin(a);
  }

  const PluginFieldCollection* getFieldNames() noexcept override { return example_.getFieldsToSerialize(); }
  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  NormActPlugin example_{Attributes{}};
};

}  // namespace
}  // namespace gantrt

// What TensorRT's plugin registry asks a library for.
extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface* const* getCreators(
    int32_t& count) {
  static gantrt::NormActCreator creator;
  static nvinfer1::IPluginCreatorInterface* const all[] = {&creator};
  count = 1;
  return all;
}

extern "C" __attribute__((visibility("default"))) void setLoggerFinder(nvinfer1::ILoggerFinder*) {}
