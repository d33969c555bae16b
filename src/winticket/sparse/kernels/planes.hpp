// Images to and from the planes that a sparse convolution works on.
//
// A convolution is a sum of shifted copies of channels. Laid out as one long row per channel, all images of a batch one
// after another with their borders between them, every shift is a constant offset, so that the product of rows.hpp does
// the rest. With a stride above 1, each channel becomes stride × stride planes, one for each phase of the padded
// coordinates, and again every position is a constant offset. What a row holds between the images (sums over borders)
// is never read.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace winticket {

struct Planes {
  int64_t images, channels, height, width;
  int64_t phases_down, phases_across;  // the strides of the convolution
  int64_t pad_down, pad_across;
  int64_t grid_height, grid_width;  // of one image in a plane
  int64_t lead;                     // zeros before the first plane of a replicate
  int64_t in_stride, out_stride;    // between replicates

  int64_t length() const { return images * grid_height * grid_width; }
};

// in [S, images, channels, height, width] -> out [S, channels, phases, images, grid_height, grid_width], which is zero.
template <class T>
void spread_channel(const Planes& p, const T* in, T* out, int64_t r, int64_t c) {
  const int64_t phases = p.phases_down * p.phases_across;
  for (int64_t n = 0; n < p.images; ++n)
    for (int64_t y = 0; y < p.height; ++y) {
      const T* from = in + r * p.in_stride + ((n * p.channels + c) * p.height + y) * p.width;
      const int64_t down = y + p.pad_down, line = down / p.phases_down;
      T* plane = out + r * p.out_stride + p.lead +
                 (c * phases + down % p.phases_down * p.phases_across) * p.length() +
                 (n * p.grid_height + line) * p.grid_width;
      if (p.phases_across == 1)
        std::memcpy(plane + p.pad_across, from, p.width * sizeof(T));
      else
        for (int64_t x = 0; x < p.width; ++x) {
          const int64_t across = x + p.pad_across;
          plane[across % p.phases_across * p.length() + across / p.phases_across] = from[x];
        }
    }
}

// The way back: in as spread's out, out as spread's in. Values of the borders are dropped.
template <class T>
void gather_channel(const Planes& p, const T* in, T* out, int64_t r, int64_t c) {
  const int64_t phases = p.phases_down * p.phases_across;
  for (int64_t n = 0; n < p.images; ++n)
    for (int64_t y = 0; y < p.height; ++y) {
      T* to = out + r * p.out_stride + ((n * p.channels + c) * p.height + y) * p.width;
      const int64_t down = y + p.pad_down, line = down / p.phases_down;
      const T* plane = in + r * p.in_stride + p.lead +
                       (c * phases + down % p.phases_down * p.phases_across) * p.length() +
                       (n * p.grid_height + line) * p.grid_width;
      if (p.phases_across == 1)
        std::memcpy(to, plane + p.pad_across, p.width * sizeof(T));
      else
        for (int64_t x = 0; x < p.width; ++x) {
          const int64_t across = x + p.pad_across;
          to[x] = plane[across % p.phases_across * p.length() + across / p.phases_across];
        }
    }
}

}  // namespace winticket
