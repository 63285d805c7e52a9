#ifndef START_H
#define START_H

void print(const char *text); /* to the debugger's console */

#endif
