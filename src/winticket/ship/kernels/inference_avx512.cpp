#define ISA avx512
#define BYTES 64
#include "inference.hpp"
