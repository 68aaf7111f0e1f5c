// The one translation unit that holds the bodies of Boost.JSON (cmake/EmBoost.cmake).
#include <boost/json/src.hpp>
