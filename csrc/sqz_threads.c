/* sqz_threads.c - a small pool of waiting threads, and the barrier that keeps them in step.
 *
 * The calling thread is thread 0 and works with the others. Waits spin for some microseconds, since stages are short,
 * then give the processor away, so that a crowded machine is not made worse. */
#include "sqz_internal.h"

#if defined(SQZ_NO_THREADS) || defined(SQZ_FREESTANDING)

size_t sqz_pool_bytes(int threads) { return threads == 1 ? sizeof(int) : 0; }

sqz_status sqz_pool_create(int threads, void *memory, size_t bytes, sqz_pool **pool) {
    (void)memory, (void)bytes;
    if (threads != 1 || !pool) return SQZ_BAD_ARGUMENT;
    *pool = NULL; /* alone */
    return SQZ_OK;
}

void sqz_pool_destroy(sqz_pool *pool) { (void)pool; }
int sqz_pool_threads(const sqz_pool *pool) { (void)pool; return 1; }
void sqz_pool_run(sqz_pool *pool, void (*task)(void *, int), void *context) { (void)pool, task(context, 0); }
void sqz_barrier_wait(sqz_barrier *barrier) { (void)barrier; }

#else

enum { THREADS_SPINS = 4000, THREADS_MAX = 1024 };

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
#define threads_condition_wake(condition) WakeAllConditionVariable(condition)
#define threads_condition_destroy(condition) ((void)(condition))
#define threads_give_way() SwitchToThread()
#define THREADS_RESULT DWORD WINAPI
#else
#include <pthread.h>
#include <sched.h>
typedef pthread_t threads_handle;
typedef pthread_mutex_t threads_lock;
typedef pthread_cond_t threads_condition;
#define threads_lock_init(lock) pthread_mutex_init(lock, NULL)
#define threads_lock_enter(lock) pthread_mutex_lock(lock)
#define threads_lock_leave(lock) pthread_mutex_unlock(lock)
#define threads_lock_destroy(lock) pthread_mutex_destroy(lock)
#define threads_condition_init(condition) pthread_cond_init(condition, NULL)
#define threads_condition_wait(condition, lock) pthread_cond_wait(condition, lock)
#define threads_condition_wake(condition) pthread_cond_broadcast(condition)
#define threads_condition_destroy(condition) pthread_cond_destroy(condition)
#define threads_give_way() sched_yield()
#define THREADS_RESULT void *
#endif

#if defined(_MSC_VER) && !defined(__clang__)
static int32_t threads_load(int32_t *at) { return (int32_t)InterlockedCompareExchange((volatile LONG *)at, 0, 0); }
static void threads_store(int32_t *at, int32_t value) { InterlockedExchange((volatile LONG *)at, value); }
static int32_t threads_add(int32_t *at, int32_t by) {
    return (int32_t)InterlockedExchangeAdd((volatile LONG *)at, by) + by;
}
#define threads_pause() YieldProcessor()
#else
static int32_t threads_load(int32_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
static void threads_store(int32_t *at, int32_t value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }
static int32_t threads_add(int32_t *at, int32_t by) { return __atomic_add_fetch(at, by, __ATOMIC_ACQ_REL); }
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

struct sqz_pool {
    int threads;
    int started;      /* workers that exist */
    int32_t ticket;   /* rises with every task; -1 ends the workers */
    int32_t sleepers; /* workers that wait on `wake` */
    int32_t running;  /* workers that still work on the task */
    void (*task)(void *context, int thread);
    void *context;
    threads_lock lock;
    threads_condition wake;
    threads_worker workers[1]; /* threads - 1 of them */
};

/* Waits until *at differs from `value`; returns 0 if it still does not after spinning. */
static int threads_spin(int32_t *at, int32_t value) {
    for (int i = 0; i < THREADS_SPINS; i++) {
        if (threads_load(at) != value) return 1;
        threads_pause();
    }
    return 0;
}

void sqz_barrier_wait(sqz_barrier *barrier) {
    int32_t generation = threads_load(&barrier->generation);
    if (threads_add(&barrier->arrived, 1) == barrier->count) {
        threads_store(&barrier->arrived, 0);
        threads_add(&barrier->generation, 1);
        return;
    }
    while (!threads_spin(&barrier->generation, generation)) threads_give_way();
}

static THREADS_RESULT threads_main(void *argument) {
    threads_worker *worker = argument;
    sqz_pool *pool = worker->pool;
    int32_t seen = 0, ticket;
    for (;;) {
        if (!threads_spin(&pool->ticket, seen)) {
            threads_lock_enter(&pool->lock);
            threads_add(&pool->sleepers, 1);
            while (threads_load(&pool->ticket) == seen) threads_condition_wait(&pool->wake, &pool->lock);
            threads_add(&pool->sleepers, -1);
            threads_lock_leave(&pool->lock);
        }
        ticket = threads_load(&pool->ticket);
        if (ticket < 0) return 0;
        seen = ticket;
        pool->task(pool->context, worker->number);
        threads_add(&pool->running, -1);
    }
}

static void threads_announce(sqz_pool *pool, int32_t ticket) {
    threads_lock_enter(&pool->lock);
    threads_store(&pool->ticket, ticket);
    if (threads_load(&pool->sleepers)) threads_condition_wake(&pool->wake);
    threads_lock_leave(&pool->lock);
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
    if (threads_condition_init(&pool->wake)) {
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
    threads_announce(pool, -1);
    for (int i = 0; i < pool->started; i++) {
#if defined(_WIN32)
        WaitForSingleObject(pool->workers[i].handle, INFINITE);
        CloseHandle(pool->workers[i].handle);
#else
        pthread_join(pool->workers[i].handle, NULL);
#endif
    }
    threads_condition_destroy(&pool->wake);
    threads_lock_destroy(&pool->lock);
}

int sqz_pool_threads(const sqz_pool *pool) { return pool->threads; }

void sqz_pool_run(sqz_pool *pool, void (*task)(void *context, int thread), void *context) {
    int32_t next = (threads_load(&pool->ticket) + 1) & INT32_MAX, left;
    pool->task = task;
    pool->context = context;
    threads_store(&pool->running, pool->threads - 1);
    threads_announce(pool, next);
    task(context, 0);
    while ((left = threads_load(&pool->running)) != 0) {
        if (!threads_spin(&pool->running, left)) threads_give_way();
    }
}

#endif
