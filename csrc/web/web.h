/* web.h - what the two halves of the WebAssembly module share. */
#ifndef WEB_H
#define WEB_H

#include "../sqz_internal.h"

#define WEB_EXPORT(name) __attribute__((export_name(#name)))

/* Aligned memory; 0 if there is none. */
void *web_alloc(size_t bytes);
/* Gives back what was allocated since the model was opened. */
void web_release(void);
int web_input_size(void);
uint8_t *web_pixels(void);

#endif
