/* iq_tables.h: the grids of the IQ types as levels (iq.c says which values they are). Source: ggml's tables (facts),
 * by tools/make_iq_tables.py. */
#ifndef ENGINE_FILE_IQ_TABLES_H
#define ENGINE_FILE_IQ_TABLES_H

#include <stdint.h>

/* 8 values of 2 bits */
extern const uint16_t eng_grid_iq2xxs[256], eng_grid_iq2xs[512], eng_grid_iq2s[1024], eng_grid_iq1s[2048];
/* 4 values of 3 bits */
extern const uint16_t eng_grid_iq3xxs[256], eng_grid_iq3s[512];

#endif
