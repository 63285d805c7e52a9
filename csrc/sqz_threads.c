/* sqz_threads.c - a small pool of waiting threads that share the parts of each stage.
 *
 * The calling thread is thread 0 and works with the others. Parts are not assigned to threads in advance: any thread that
 * is awake takes the next part. A thread that the system interrupts thus delays only the part that it has begun. Threads
 * wait by spinning for some microseconds, since stages are short, and then sleep, to free the processor for others. */
#include "sqz_internal.h"

#if defined(SQZ_NO_THREADS) || defined(SQZ_FREESTANDING)

size_t sqz_pool_bytes(int threads) { return threads == 1 ? sizeof(int) : 0; }

sqz_status sqz_pool_create(int threads, void *memory, size_t bytes, sqz_pool **pool) {
    (void)memory, (void)bytes;
    if (threads != 1 || !pool) return SQZ_BAD_ARGUMENT;
    *pool = NULL; /* runs without other threads */
    return SQZ_OK;
}

void sqz_pool_destroy(sqz_pool *pool) { (void)pool; }
int sqz_pool_threads(const sqz_pool *pool) { (void)pool; return 1; }

void sqz_pool_run(sqz_pool *pool, int threads, int stages, const int *parts, sqz_task *task, void *context) {
    (void)pool, (void)threads;
    for (int stage = 0; stage < stages; stage++) {
        for (int part = 0; part < parts[stage]; part++) task(context, 0, stage, part);
    }
}

#else

enum { THREADS_SPINS = 1000, THREADS_MAX = 1024 };

#if defined(_WIN32)
#include <windows.h>
typedef HANDLE threads_handle;
typedef SRWLOCK threads_lock;
typedef CONDITION_VARIABLE threads_condition;
#define threads_lock_init(lock) (InitializeSRWLock(lock), 0)
#define threads_lock_enter(lock) AcquireSRWLockExclusive(lock)
#define threads_lock_leave(lock) ReleaseSRWLockExclusive(lock)
#define threads_lock_destroy(lock) ((void)(lock))
#define threads_condition_init(condition) (InitializeConditionVariable(condition), 0)
#define threads_condition_wait(condition, lock) SleepConditionVariableSRW(condition, lock, INFINITE, 0)
#define threads_condition_wake(condition) WakeConditionVariable(condition)
#define threads_condition_destroy(condition) ((void)(condition))
#define THREADS_RESULT DWORD WINAPI
#else
#include <pthread.h>
typedef pthread_t threads_handle;
typedef pthread_mutex_t threads_lock;
typedef pthread_cond_t threads_condition;
#define threads_lock_init(lock) pthread_mutex_init(lock, NULL)
#define threads_lock_enter(lock) pthread_mutex_lock(lock)
#define threads_lock_leave(lock) pthread_mutex_unlock(lock)
#define threads_lock_destroy(lock) pthread_mutex_destroy(lock)
#define threads_condition_init(condition) pthread_cond_init(condition, NULL)
#define threads_condition_wait(condition, lock) pthread_cond_wait(condition, lock)
#define threads_condition_wake(condition) pthread_cond_signal(condition)
#define threads_condition_destroy(condition) pthread_cond_destroy(condition)
#define THREADS_RESULT void *
#endif

/* Sequentially consistent: all threads see one order, so that no thread falls asleep just as another one wakes it. */
#if defined(_MSC_VER) && !defined(__clang__)
static int32_t threads_load(int32_t *at) { return (int32_t)InterlockedCompareExchange((volatile LONG *)at, 0, 0); }
static void threads_store(int32_t *at, int32_t value) { InterlockedExchange((volatile LONG *)at, value); }
static int32_t threads_add(int32_t *at, int32_t by) {
    return (int32_t)InterlockedExchangeAdd((volatile LONG *)at, by) + by;
}
static int threads_swap(int64_t *at, int64_t *old, int64_t value) {
    int64_t found = InterlockedCompareExchange64((volatile LONG64 *)at, value, *old);
    int is_swapped = found == *old;
    *old = found;
    return is_swapped;
}
#define threads_pause() YieldProcessor()
#else
static int32_t threads_load(int32_t *at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
static void threads_store(int32_t *at, int32_t value) { __atomic_store_n(at, value, __ATOMIC_SEQ_CST); }
static int32_t threads_add(int32_t *at, int32_t by) { return __atomic_add_fetch(at, by, __ATOMIC_SEQ_CST); }
/* Compare and swap: replaces *at if it equals *old; *old becomes the value found. */
static int threads_swap(int64_t *at, int64_t *old, int64_t value) {
    return __atomic_compare_exchange_n(at, old, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
#if defined(__x86_64__) || defined(__i386__)
#define threads_pause() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define threads_pause() __asm__ volatile("yield")
#else
#define threads_pause() ((void)0)
#endif
#endif

typedef struct {
    sqz_pool *pool;
    int number;
    threads_handle handle;
} threads_worker;

/* The parts of a stage that are not yet taken, and the number of those done. `ticket` is run << 32 | parts << 16 | next:
 * the run in it keeps a thread that is still in an earlier run from taking a part of this one. */
typedef struct {
    int64_t ticket;
    int32_t done;
} threads_stage;

/* Where threads sleep. */
typedef struct {
    threads_condition condition;
    int32_t sleepers;
} threads_room;

struct sqz_pool {
    int threads;
    int started;      /* workers that exist */
    int32_t run;      /* changes with every run; -1 ends the workers */
    int32_t stages_of_run;
    sqz_task *task;   /* read only by threads that have taken a part, which keeps the run from ending */
    void *context;
    threads_lock lock;
    threads_room idle, step; /* threads waiting for a run, and for the end of a stage */
    threads_stage stages[SQZ_MAX_STAGES];
    threads_worker workers[1]; /* threads - 1 of them */
};

/* Waits until that many parts are done, or the pool's run is not `run` any more. */
static void threads_wait(sqz_pool *pool, threads_room *room, int32_t run, int32_t *done, int32_t parts) {
#define THREADS_IS_OVER (threads_load(done) == parts || threads_load(&pool->run) != run)
    for (int i = 0; i < THREADS_SPINS; i++) {
        if (THREADS_IS_OVER) return;
        threads_pause();
    }
    threads_lock_enter(&pool->lock);
    threads_add(&room->sleepers, 1);
    while (!THREADS_IS_OVER) threads_condition_wait(&room->condition, &pool->lock);
    threads_add(&room->sleepers, -1);
    threads_lock_leave(&pool->lock);
}

/* Wakes up to that many threads, if they sleep. */
static void threads_wake(sqz_pool *pool, threads_room *room, int count) {
    if (!threads_load(&room->sleepers)) return;
    threads_lock_enter(&pool->lock); /* so that no thread is between its check and its sleep */
    while (count-- > 0) threads_condition_wake(&room->condition);
    threads_lock_leave(&pool->lock);
}

/* Takes parts of a run, as long as parts remain and the pool's run is this one. */
static void threads_work(sqz_pool *pool, int32_t run, int thread) {
    for (int32_t i = 0; i < threads_load(&pool->stages_of_run); i++) {
        threads_stage *stage = &pool->stages[i];
        int64_t ticket = 0;
        int32_t parts;
        threads_swap(&stage->ticket, &ticket, 0); /* reads it */
        for (;;) {
            parts = (int32_t)(ticket >> 16 & 0xFFFF);
            if (ticket >> 32 != run) return;
            if ((ticket & 0xFFFF) == parts) break;
            if (!threads_swap(&stage->ticket, &ticket, ticket + 1)) continue;
            pool->task(pool->context, thread, i, (int)(ticket & 0xFFFF));
            if (threads_add(&stage->done, 1) == parts) threads_wake(pool, &pool->step, pool->threads);
            ticket++;
        }
        threads_wait(pool, &pool->step, run, &stage->done, parts);
    }
}

static THREADS_RESULT threads_main(void *argument) {
    threads_worker *worker = argument;
    sqz_pool *pool = worker->pool;
    int32_t run = 0, never = 0;
    for (;;) {
        threads_wait(pool, &pool->idle, run, &never, -1);
        run = threads_load(&pool->run);
        if (run < 0) return 0;
        threads_work(pool, run, worker->number);
    }
}

size_t sqz_pool_bytes(int threads) {
    if (threads < 1 || threads > THREADS_MAX) return 0;
    return sizeof(sqz_pool) + sizeof(threads_worker) * (size_t)threads + SQZ_ALIGN;
}

sqz_status sqz_pool_create(int threads, void *memory, size_t bytes, sqz_pool **result) {
    size_t pad = (SQZ_ALIGN - (uintptr_t)memory % SQZ_ALIGN) % SQZ_ALIGN;
    sqz_pool *pool = (sqz_pool *)(void *)((uint8_t *)memory + pad);
    if (!memory || !result || !sqz_pool_bytes(threads)) return SQZ_BAD_ARGUMENT;
    if (bytes < sqz_pool_bytes(threads)) return SQZ_NO_MEMORY;
    memset(pool, 0, sizeof *pool);
    pool->threads = threads;
    if (threads_lock_init(&pool->lock)) return SQZ_NO_MEMORY;
    if (threads_condition_init(&pool->idle.condition)) {
        threads_lock_destroy(&pool->lock);
        return SQZ_NO_MEMORY;
    }
    if (threads_condition_init(&pool->step.condition)) {
        threads_condition_destroy(&pool->idle.condition);
        threads_lock_destroy(&pool->lock);
        return SQZ_NO_MEMORY;
    }
    for (int i = 1; i < threads; i++) {
        threads_worker *worker = &pool->workers[i - 1];
        int failed;
        worker->pool = pool;
        worker->number = i;
#if defined(_WIN32)
        worker->handle = CreateThread(NULL, 0, threads_main, worker, 0, NULL);
        failed = worker->handle == NULL;
#else
        failed = pthread_create(&worker->handle, NULL, threads_main, worker);
#endif
        if (failed) {
            sqz_pool_destroy(pool);
            return SQZ_NO_MEMORY;
        }
        pool->started++;
    }
    *result = pool;
    return SQZ_OK;
}

void sqz_pool_destroy(sqz_pool *pool) {
    if (!pool) return;
    threads_store(&pool->run, -1);
    threads_wake(pool, &pool->idle, pool->threads);
    for (int i = 0; i < pool->started; i++) {
#if defined(_WIN32)
        WaitForSingleObject(pool->workers[i].handle, INFINITE);
        CloseHandle(pool->workers[i].handle);
#else
        pthread_join(pool->workers[i].handle, NULL);
#endif
    }
    threads_condition_destroy(&pool->step.condition);
    threads_condition_destroy(&pool->idle.condition);
    threads_lock_destroy(&pool->lock);
}

int sqz_pool_threads(const sqz_pool *pool) { return pool->threads; }

void sqz_pool_run(sqz_pool *pool, int threads, int stages, const int *parts, sqz_task *task, void *context) {
    int32_t run = (threads_load(&pool->run) & (INT32_MAX >> 1)) + 1;
    pool->task = task;
    pool->context = context;
    for (int i = 0; i < stages; i++) {
        int64_t ticket = 0; /* any value found is of an earlier run, whose parts are all taken */
        while (!threads_swap(&pool->stages[i].ticket, &ticket, (int64_t)run << 32 | (int64_t)parts[i] << 16)) continue;
        threads_store(&pool->stages[i].done, 0);
    }
    threads_store(&pool->stages_of_run, stages);
    threads_store(&pool->run, run);
    threads_wake(pool, &pool->idle, threads - 1);
    threads_work(pool, run, 0);
}

#endif
