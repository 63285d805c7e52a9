/* Arduino.h - as much of Arduino as the example's sketch uses, on a computer: prints what one loop() prints. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

static struct {
    void begin(long) {}
    void print(const char *text) { printf("%s", text); }
    void println(const char *text) { printf("%s\n", text); }
    void println(unsigned long number) { printf("%lu\n", number); }
} Serial;

static inline unsigned long millis() { return 0; }

void setup();
void loop();

int main() {
    setup();
    loop();
    return 0;
}
