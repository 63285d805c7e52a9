
enum { @NAME@_IS_OPEN = 0x53515a31 };

/* The state at the start of the arena. */
typedef struct {
    uint32_t state;
    sqz_model *model; /* this and the next two only if weights are decoded */
    void *shared; /* the decoder's memory, then the activations */
    size_t shared_bytes;
} own_state;

static own_state *own_start(void *arena) {
    return (own_state *)(void *)((uint8_t *)arena + sqz_padding(arena));
}
