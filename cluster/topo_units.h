/* topo_units.h: the units of a topology's numbers, for its reader (topo_text.c) and its writer
 * (topo_write.c) only. */
#ifndef CLUSTER_TOPO_UNITS_H
#define CLUSTER_TOPO_UNITS_H

enum unit { COUNT, BYTES, BYTES_S, OPS_S, SECONDS };

struct suffix {
    const char *text;
    double factor;
};
/* clang-format off */
static const struct suffix suffixes[][12] = {
    [COUNT] = {{"", 1}},
    [BYTES] = {{"B", 1}, {"KiB", 1024}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40},
               {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}},
    [BYTES_S] = {{"B/s", 1}, {"KB/s", 1e3}, {"MB/s", 1e6}, {"GB/s", 1e9}, {"TB/s", 1e12},
                 {"Mbit/s", 125e3}, {"Gbit/s", 125e6}},
    [OPS_S] = {{"", 1}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}, {"P", 1e15}},
    [SECONDS] = {{"s", 1}, {"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9}},
};
/* clang-format on */

#endif
