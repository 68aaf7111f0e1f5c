// The one translation unit that holds the bodies of Boost.Asio and Boost.Beast
// (cmake/EmBoost.cmake).
#include <boost/asio/impl/src.hpp>
#include <boost/beast/src.hpp>
