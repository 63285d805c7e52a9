/* web.h - declarations that the parts of the WebAssembly module share. */
#ifndef WEB_H
#define WEB_H

#include "../sqz_internal.h"

#define WEB_EXPORT(name) __attribute__((export_name(#name)))

/* Aligned memory; 0 if there is none. */
void *web_alloc(size_t bytes);
/* Frees all memory allocated since the model was opened. */
void web_release(void);
/* Memory that stays allocated; frees all other memory allocated since the model was opened. */
void *web_keep(size_t bytes);
int web_input_size(void);
uint8_t *web_pixels(void);
int web_map_size(void);
int web_map_border(void);
int web_channels(void);
int web_classes(void);
int32_t *web_features(void);
const sqz_model *web_opened(void);
const uint8_t *web_file_start(void);
const sqz_header *web_file_header(void);
int web_convs(void);
int web_head_zero(void); /* zero-point of the head's input */

#endif
