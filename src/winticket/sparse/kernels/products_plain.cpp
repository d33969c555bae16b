#define ISA plain
#define BYTES 16
#include "training.hpp"
