"""TensorRT plans: an engine file compiled for one kind of NVIDIA GPU.

targets       TensorRT and TensorRT-RTX, one interface
graph         the graph as its parser takes it, with our plugin or with the bodies inlined
channels      their numbers, as tensor cores take them
norm_act      the plugin
rtx_alias     a library TensorRT-RTX's wheel forgot
build         .onnx -> .plan
timing_cache  what TensorRT measured before
census        the kernels a plan launches
check         why a plan cannot run here, and the command that rebuilds it
engine        .plan -> pictures
driver        the few calls of the CUDA driver that takes
"""
