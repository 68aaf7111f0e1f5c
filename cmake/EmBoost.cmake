# Boost.Asio, Beast and JSON, each compiled once instead of in every file that includes them.
# Whoever includes <boost/asio...> or <boost/beast...> links em::boost_asio; whoever includes
# <boost/json...> links em::boost_json. Who may do so is in docs/architecture.md §5.
add_library(em_boost_asio STATIC EXCLUDE_FROM_ALL "${CMAKE_CURRENT_LIST_DIR}/boost_asio.cc")
add_library(em::boost_asio ALIAS em_boost_asio)
target_compile_definitions(em_boost_asio PUBLIC
  BOOST_ASIO_SEPARATE_COMPILATION BOOST_BEAST_SEPARATE_COMPILATION)
if(EXPERTMESH_SANITIZE MATCHES "thread")
  # g++ has no thread fences under ThreadSanitizer; Asio also guards its queues with mutexes.
  target_compile_definitions(em_boost_asio PUBLIC BOOST_ASIO_DISABLE_FENCED_BLOCK)
endif()
target_link_libraries(em_boost_asio PUBLIC Boost::headers Threads::Threads)

add_library(em_boost_json STATIC EXCLUDE_FROM_ALL "${CMAKE_CURRENT_LIST_DIR}/boost_json.cc")
add_library(em::boost_json ALIAS em_boost_json)
target_link_libraries(em_boost_json PUBLIC Boost::headers)
