/* chip.h - files of the host and counters, for programs on an emulated chip. */
#ifndef CHIP_H
#define CHIP_H

#include <stddef.h>
#include <stdint.h>

int chip_open(const char *name, int is_written);
void chip_seek(int file, size_t at);
size_t chip_read(int file, void *to, size_t size);
size_t chip_write(int file, const void *from, size_t size);
void chip_exit(int code);
uint32_t chip_counter(void);     /* ticks of a clock that advances with instructions, modulo 2^32 */
uint32_t chip_stack_bytes(void); /* of the stack, that were ever used */
uint32_t chip_touched(const void *from, size_t bytes); /* that no longer hold 0xA5 */

#endif
