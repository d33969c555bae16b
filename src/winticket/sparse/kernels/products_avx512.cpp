#define ISA avx512
#define BYTES 64
#include "training.hpp"
