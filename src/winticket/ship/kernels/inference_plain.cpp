#define ISA plain
#define BYTES 16
#include "inference.hpp"
