# Flags of the kernel files. Each is compiled for one instruction set and chosen at run time; all
# give the same bits, so no flag here may allow contraction or reordering.
set(em_kernel_common "-O3")
# g++ 12 warns inside its own avx512fintrin.h (GCC bug 105593).
set(em_quiet "-Wno-maybe-uninitialized;-Wno-uninitialized")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set_source_files_properties(kernels/cpu/avx512.cc PROPERTIES COMPILE_OPTIONS
    "${em_kernel_common};-march=x86-64-v4;-mprefer-vector-width=512;${em_quiet}")
  set_source_files_properties(kernels/cpu/avx512_vnni.cc PROPERTIES COMPILE_OPTIONS
    "${em_kernel_common};-march=x86-64-v4;-mavx512vnni;-mprefer-vector-width=512;${em_quiet}")
  set_source_files_properties(kernels/cpu/avx512_vbmi.cc PROPERTIES COMPILE_OPTIONS
    "${em_kernel_common};-march=x86-64-v4;-mavx512vbmi;-mprefer-vector-width=512;${em_quiet}")
  set_source_files_properties(kernels/cpu/avx2.cc PROPERTIES COMPILE_OPTIONS
    "${em_kernel_common};-march=x86-64-v3")
endif()
set_source_files_properties(kernels/cpu/baseline.cc PROPERTIES COMPILE_OPTIONS
  "${em_kernel_common}")
