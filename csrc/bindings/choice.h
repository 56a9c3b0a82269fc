// Words of Python to values of ours.
#pragma once

#include <initializer_list>
#include <stdexcept>
#include <string>
#include <utility>

#include "../kernels/norm_act.h"
#include "../kernels/pixels.h"

namespace gantrt {

[[noreturn]] inline void refuse(const char* who, const std::string& what) {
  throw std::invalid_argument(std::string(who) + ": " + what);
}

// The value of a word, or std::invalid_argument that names the words there are.
template <class Value>
Value choice(const char* who, const char* what, const std::string& word,
             std::initializer_list<std::pair<const char*, Value>> choices) {
  std::string known;
  for (const auto& [name, value] : choices) {
    if (word == name) return value;
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  refuse(who, std::string(what) + " must be one of " + known + "; got '" + word + "'");
}

inline PixelOptions pixel_options(const char* who, const std::string& color, const std::string& resize,
                                  int border, std::pair<double, double> range) {
  PixelOptions options;
  options.color = choice<Color>(who, "color", color, {{"rgb", Color::kRgb}, {"bgr", Color::kBgr}});
  options.filter =
      choice<Filter>(who, "resize", resize,
                     {{"auto", Filter::kArea}, {"area", Filter::kArea}, {"bilinear", Filter::kBilinear}});
  options.border = border;
  options.lo = static_cast<float>(range.first);
  options.hi = static_cast<float>(range.second);
  return options;
}

inline NormActMode norm_act_mode(const char* who, const std::string& word) {
  return choice<NormActMode>(who, "mode", word,
                             {{"auto", NormActMode::kAuto},
                              {"cluster", NormActMode::kCluster},
                              {"cooperative", NormActMode::kCooperative},
                              {"two_kernels", NormActMode::kTwoKernels}});
}

}  // namespace gantrt
