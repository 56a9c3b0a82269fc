# What is inside the compiled module, and what ships beside it: a CycloneDX list in the wheel, *.dist-info/sboms (PEP 770).
# It names what is *in* the wheel; what the wheel asks pip for stands in its METADATA.  No date and no serial number:
# the same sources make the same list.
if(NOT SKBUILD)
  return()
endif()

set(sbom_version "${SKBUILD_PROJECT_VERSION_FULL}")
string(CONCAT sbom_parts
  [[    {"bom-ref": "pybind11", "type": "library", "name": "pybind11", "version": "]] "${pybind11_VERSION}" [[",
     "description": "headers, compiled into gantrt/_core", "purl": "pkg:pypi/pybind11@]] "${pybind11_VERSION}" [[",
     "licenses": [{"license": {"id": "BSD-3-Clause"}}]},
    {"bom-ref": "mnist", "type": "data", "name": "MNIST excerpt", "version": "6 and 9",
     "description": "gantrt_training/assets/mnist: 4600 handwritten digits by Y. LeCun and C. Cortes",
     "licenses": [{"license": {"id": "CC-BY-SA-3.0"}}]}]])
set(sbom_refs [["pybind11", "mnist"]])
if(with_cuda)
  set(cudart "${CMAKE_CUDA_COMPILER_TOOLKIT_VERSION}")
  if(NOT cudart)
    set(cudart "${CMAKE_CUDA_COMPILER_VERSION}")
  endif()
  string(APPEND sbom_parts [[,
    {"bom-ref": "cudart", "type": "library", "name": "NVIDIA CUDA Runtime", "version": "]] "${cudart}" [[",
     "description": "libcudart_static, linked into gantrt/_core", "supplier": {"name": "NVIDIA Corporation"},
     "licenses": [{"license": {"name": "NVIDIA CUDA Toolkit EULA"}}]}]])
  string(APPEND sbom_refs [[, "cudart"]])
endif()

set(sbom "${CMAKE_CURRENT_BINARY_DIR}/gantrt.cdx.json")
configure_file(sbom.json.in "${sbom}" @ONLY)
install(FILES "${sbom}" DESTINATION "${SKBUILD_METADATA_DIR}/sboms")
