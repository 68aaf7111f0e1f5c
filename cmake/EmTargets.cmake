# em_library(NAME SOURCES a.cc … DEPS em::base …)  → target em_NAME, alias em::NAME
function(em_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  if(ARG_SOURCES)
    add_library(em_${name} STATIC ${ARG_SOURCES})
    set(scope PUBLIC)
    target_link_libraries(em_${name} PRIVATE em::compile_options)
  else()
    add_library(em_${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  add_library(em::${name} ALIAS em_${name})
  target_include_directories(em_${name} ${scope} "${PROJECT_SOURCE_DIR}")
  target_link_libraries(em_${name} ${scope} ${ARG_DEPS})
endfunction()

# em_binary(NAME SOURCES main.cc DEPS …)  → bin/NAME
function(em_binary name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}")
  target_link_libraries(${name} PRIVATE em::compile_options ${ARG_DEPS})
endfunction()

# em_test(NAME SOURCES … DEPS … [LABEL unit] [TIMEOUT 120])  → a GoogleTest binary bin/NAME and a
# ctest entry of that name. The label is the suite that `./mesh test LABEL` runs.
function(em_test name)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "SOURCES;DEPS" ${ARGN})
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(EXPERTMESH_SANITIZE)  # some five times slower
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 4")
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}")
  target_compile_definitions(${name} PRIVATE
    EXPERTMESH_SOURCE_DIR="${PROJECT_SOURCE_DIR}" EXPERTMESH_BIN_DIR="${CMAKE_BINARY_DIR}/bin")
  target_link_libraries(${name} PRIVATE em::compile_options ${ARG_DEPS}
                        GTest::gmock GTest::gtest_main)
  # A third of a build is tests; what they test is optimised in its own library.
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT})
endfunction()

# em_proto_library(NAME ROOT dir PROTOS a/b.proto … [GRPC] DEPS …)
# Generates into <build>/gen and marks the generated headers SYSTEM (they do not pass -Werror).
function(em_proto_library name)
  cmake_parse_arguments(ARG "GRPC" "ROOT" "PROTOS;DEPS" ${ARGN})
  set(gen "${PROJECT_BINARY_DIR}/gen")
  file(MAKE_DIRECTORY "${gen}")
  set(sources)
  foreach(proto IN LISTS ARG_PROTOS)
    string(REGEX REPLACE "\\.proto$" "" stem "${proto}")
    set(outputs "${gen}/${stem}.pb.cc" "${gen}/${stem}.pb.h")
    set(command protobuf::protoc --cpp_out=${gen})
    if(ARG_GRPC)
      list(APPEND outputs "${gen}/${stem}.grpc.pb.cc" "${gen}/${stem}.grpc.pb.h")
      list(APPEND command --grpc_out=${gen}
           "--plugin=protoc-gen-grpc=$<TARGET_FILE:gRPC::grpc_cpp_plugin>")
    endif()
    add_custom_command(
      OUTPUT ${outputs}
      COMMAND ${command} -I "${PROJECT_SOURCE_DIR}/proto" -I "${PROJECT_SOURCE_DIR}/third_party"
              "${ARG_ROOT}/${proto}"
      DEPENDS "${ARG_ROOT}/${proto}" VERBATIM)
    list(APPEND sources ${outputs})
  endforeach()
  add_library(em_${name} STATIC ${sources})
  add_library(em::${name} ALIAS em_${name})
  target_include_directories(em_${name} SYSTEM PUBLIC "${gen}")
  target_link_libraries(em_${name} PUBLIC protobuf::libprotobuf ${ARG_DEPS})
  if(ARG_GRPC)
    target_link_libraries(em_${name} PUBLIC gRPC::grpc++)
  endif()
endfunction()
