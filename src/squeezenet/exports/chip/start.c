/* start.c - what stands below main() on an emulated chip: vectors, memory, floats, semihosting, a counter. */
#include <stddef.h>
#include <stdint.h>

#include "chip.h"

extern uint32_t chip_data_from[], chip_data[], chip_data_end[], chip_bss[], chip_bss_end[], chip_stack[], chip_stack_end[];

enum { CHIP_UNTOUCHED = 0xA5A5A5A5 };

#if defined(__arm__)
static uintptr_t chip_call(unsigned operation, const void *argument) {
    register uintptr_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}
#else
static uintptr_t chip_call(unsigned operation, const void *argument) {
    register uintptr_t a0 __asm__("a0") = operation;
    register const void *a1 __asm__("a1") = argument;
    __asm__ volatile(".option push\n.option norvc\n.balign 16\nslli zero, zero, 0x1f\nebreak\nsrai zero, zero, 7\n"
                     ".option pop"
                     : "+r"(a0)
                     : "r"(a1)
                     : "memory");
    return a0;
}
#endif

int chip_open(const char *name, int is_written) {
    size_t length = 0;
    uintptr_t block[3];
    while (name[length]) length++;
    block[0] = (uintptr_t)name, block[1] = is_written ? 5 : 1, block[2] = length; /* "wb", "rb" */
    return (int)chip_call(1, block);
}

void chip_seek(int file, size_t at) {
    uintptr_t block[2] = {(uintptr_t)file, at};
    chip_call(0xA, block);
}

size_t chip_read(int file, void *to, size_t size) {
    uintptr_t block[3] = {(uintptr_t)file, (uintptr_t)to, size};
    return size - chip_call(6, block);
}

size_t chip_write(int file, const void *from, size_t size) {
    uintptr_t block[3] = {(uintptr_t)file, (uintptr_t)from, size};
    return size - chip_call(5, block);
}

void chip_exit(int code) {
    uintptr_t block[2] = {0x20026, (uintptr_t)code};
    chip_call(0x20, block); /* SYS_EXIT_EXTENDED */
    for (;;) {}
}

uint32_t chip_counter(void) {
#if defined(CHIP_COUNTER)
    return *(volatile uint32_t *)CHIP_COUNTER;
#else
    uint32_t count;
    __asm__ volatile(".option push\n.option arch, +zicsr\ncsrr %0, minstret\n.option pop" : "=r"(count));
    return count;
#endif
}

uint32_t chip_stack_bytes(void) {
    const uint32_t *at = chip_stack;
    while (at < chip_stack_end && *at == CHIP_UNTOUCHED) at++;
    return (uint32_t)((const uint8_t *)chip_stack_end - (const uint8_t *)at);
}

uint32_t chip_touched(const void *from, size_t bytes) {
    const uint8_t *at = (const uint8_t *)from;
    uint32_t count = 0;
    for (size_t i = 0; i < bytes; i++) count += at[i] != (CHIP_UNTOUCHED & 0xFF);
    return count;
}

int main(void);

__attribute__((noreturn, used)) void chip_begin(void) {
    uint32_t *to, *from = chip_data_from;
    for (to = chip_data; to < chip_data_end;) *to++ = *from++;
    for (to = chip_bss; to < chip_bss_end;) *to++ = 0;
    for (to = chip_stack; to < (uint32_t *)__builtin_frame_address(0) - 16;) *to++ = CHIP_UNTOUCHED;
    chip_exit(main());
    for (;;) {}
}

#if defined(__arm__)
static void chip_fault(void) { chip_exit(99); }

__attribute__((used)) void chip_reset(void) {
#if defined(__ARM_FP)
    *(volatile uint32_t *)0xE000ED88 |= 0xF << 20; /* CPACR: the floating-point unit and Helium */
    __asm__ volatile("dsb\nisb");
#endif
    chip_begin();
}

__attribute__((section(".vectors"), used)) static void (*const chip_vectors[])(void) = {
    (void (*)(void))chip_stack_end, chip_reset, chip_fault, chip_fault, chip_fault, chip_fault, chip_fault, chip_fault,
};
#else
__attribute__((naked, section(".vectors"), used)) void chip_reset(void) {
    __asm__ volatile(".option push\n.option norelax\nla gp, __global_pointer$\n.option pop\n"
                     "la sp, chip_stack_end\nla t0, chip_fault\n.option push\n.option arch, +zicsr\ncsrw mtvec, t0\n"
                     ".option pop\nj chip_begin");
}

__attribute__((used, aligned(4))) void chip_fault(void) { chip_exit(99); }
#endif
