// The C++ plugin for ctypes, as TensorRT would use it: creator, fields, formats, clone, shapes, enqueue.
#include <NvInfer.h>

#include <array>
#include <cstring>
#include <memory>

extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);

using namespace nvinfer1;

namespace {

PluginTensorDesc desc_of(DataType type, TensorFormat format, std::initializer_list<int64_t> dims) {
  PluginTensorDesc desc{};
  desc.type = type;
  desc.format = format;
  for (int64_t extent : dims) desc.dims.d[desc.dims.nbDims++] = extent;
  return desc;
}

}  // namespace

extern "C" {

// Whether the plugin takes a picture of that type (0 float, 1 half) and format, of so many channels.
bool takes(int type, int format, int64_t channels) {
  int32_t count = 0;
  auto* creator = static_cast<IPluginCreatorV3One*>(getCreators(count)[0]);
  const PluginFieldCollection none{};
  std::unique_ptr<IPluginV3> plugin(creator->createPlugin("n", &none, TensorRTPhase::kBUILD));
  auto* build = static_cast<IPluginV3OneBuild*>(plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
  DynamicPluginTensorDesc desc{};
  desc.desc = desc_of(static_cast<DataType>(type), static_cast<TensorFormat>(format), {1, channels, 8, 8});
  return build->supportsFormatCombination(0, &desc, 1, 1);
}

// LeakyReLU of `slope`, padded by `pad`, of float32 HWC: through the fields a plan would keep. residual may
// be null.
int run(const float* x, const float* scale, const float* shift, const float* rho, const float* residual,
        float* y, int64_t n, int64_t c, int64_t h, int64_t w, float slope, int32_t pad, int32_t rpad,
        int32_t unbiased) {
  int32_t count = 0;
  auto* creator = static_cast<IPluginCreatorV3One*>(getCreators(count)[0]);
  if (count != 1 || std::strcmp(creator->getPluginName(), "NormAct") != 0) return 2;
  const float eps = 1e-5f;
  const int32_t mixed = rho != nullptr;
  const PluginField fields[] = {{"eps", &eps, PluginFieldType::kFLOAT32, 1},
                                {"slope", &slope, PluginFieldType::kFLOAT32, 1},
                                {"unbiased", &unbiased, PluginFieldType::kINT32, 1},
                                {"pad", &pad, PluginFieldType::kINT32, 1},
                                {"rpad", &rpad, PluginFieldType::kINT32, 1},
                                {"mixed", &mixed, PluginFieldType::kINT32, 1},
                                {"plugin_namespace", "gantrt", PluginFieldType::kCHAR, 6}};
  const PluginFieldCollection given{7, fields};
  std::unique_ptr<IPluginV3> made(creator->createPlugin("n", &given, TensorRTPhase::kBUILD));
  auto* first =
      static_cast<IPluginV3OneRuntime*>(made->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
  std::unique_ptr<IPluginV3> loaded(
      creator->createPlugin("n", first->getFieldsToSerialize(), TensorRTPhase::kRUNTIME));
  auto* prototype =
      static_cast<IPluginV3OneRuntime*>(loaded->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
  std::unique_ptr<IPluginV3> attached(prototype->attachToContext(nullptr));
  auto* runtime =
      static_cast<IPluginV3OneRuntime*>(attached->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
  auto* build =
      static_cast<IPluginV3OneBuild*>(attached->getCapabilityInterface(PluginCapabilityType::kBUILD));

  const auto picture = desc_of(DataType::kFLOAT, TensorFormat::kHWC, {n, c, h, w});
  const auto vector = desc_of(DataType::kFLOAT, TensorFormat::kLINEAR, {c});
  std::array<PluginTensorDesc, 5> taken{picture, vector, vector};
  std::array<const void*, 5> inputs{x, scale, shift};
  int32_t inputs_given = 3;
  if (rho) taken[inputs_given] = vector, inputs[inputs_given++] = rho;
  if (residual) taken[inputs_given] = picture, inputs[inputs_given++] = residual;
  const auto result = desc_of(DataType::kFLOAT, TensorFormat::kHWC, {n, c, h + 2 * pad, w + 2 * pad});
  DynamicPluginTensorDesc most{};
  most.max = picture.dims;
  DynamicPluginTensorDesc made_most{};
  std::unique_ptr<char[]> workspace(new char[build->getWorkspaceSize(&most, 1, &made_most, 1)]);
  void* outputs[] = {y};
  if (runtime->onShapeChange(taken.data(), inputs_given, &result, 1) != 0) return 3;
  return runtime->enqueue(taken.data(), &result, inputs.data(), outputs, workspace.get(), nullptr);
}
}
