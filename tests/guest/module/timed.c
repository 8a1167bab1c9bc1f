// SPDX-License-Identifier: GPL-2.0-or-later

#include <linux/atomic.h>
#include <linux/err.h>
#include <linux/gfp.h>
#include <linux/kthread.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>

#include "hold.h"

#define MEMORY_GFP	(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN)

struct timed_thread {
	struct timed_loop *loop;
	struct task_struct *task;
	void *buffer;		/* mapped again and again */
	dma_addr_t *mappings;	/* of the current batch */
	u64 operations;
	u64 map_errors;
	u64 end_ns;
	struct histogram map;
	struct histogram unmap;
};

/* One run; it lives for the length of timed_run(). */
struct timed_loop {
	struct hold_device *hold;
	const struct hold_parameters *parameters;
	size_t bytes;		/* of one map */
	u64 deadline_ns;
	atomic_t running;
	struct timed_thread **threads;
};

static void reschedule(u64 step)
{
	if (step % RESCHEDULE_EVERY == 0)
		cond_resched();
}

/* Maps up to @wanted times; returns how many mappings there are. */
static u64 map_batch(struct timed_thread *thread, u64 wanted)
{
	struct timed_loop *loop = thread->loop;
	struct device *device = loop->hold->device;
	u64 count = 0;
	u64 i, before, after;
	dma_addr_t mapping;

	for (i = 0; i < wanted && !kthread_should_stop(); i++) {
		before = ktime_get_ns();
		mapping = dma_map_single(device, thread->buffer, loop->bytes,
					 DMA_TO_DEVICE);
		after = ktime_get_ns();
		thread->operations++;
		if (dma_mapping_error(device, mapping)) {
			thread->map_errors++;
		} else {
			histogram_record(&thread->map, after - before);
			thread->mappings[count++] = mapping;
		}
		reschedule(i);
	}
	return count;
}

static void unmap_batch(struct timed_thread *thread, u64 count)
{
	struct timed_loop *loop = thread->loop;
	struct device *device = loop->hold->device;
	u64 i, before, after;

	for (i = 0; i < count; i++) {
		before = ktime_get_ns();
		dma_unmap_single(device, thread->mappings[i], loop->bytes,
				 DMA_TO_DEVICE);
		after = ktime_get_ns();
		histogram_record(&thread->unmap, after - before);
		reschedule(i);
	}
}

static u64 operations_left(const struct timed_thread *thread)
{
	u64 wanted = thread->loop->parameters->operations;

	return wanted ? wanted - thread->operations : U64_MAX;
}

static int thread_main(void *data)
{
	struct timed_thread *thread = data;
	struct timed_loop *loop = thread->loop;
	struct hold_device *hold = loop->hold;
	u64 wanted;

	do {
		wanted = min(operations_left(thread), loop->parameters->batch);
		unmap_batch(thread, map_batch(thread, wanted));
		cond_resched();
	} while (operations_left(thread) && !kthread_should_stop() &&
		 ktime_get_ns() < loop->deadline_ns);

	thread->end_ns = ktime_get_ns();
	if (atomic_dec_and_test(&loop->running))
		wake_up(&hold->wait);
	return 0;
}

static void destroy_thread(struct timed_thread *thread)
{
	if (!thread)
		return;
	if (thread->task) {
		/* The reference lets this work on a thread that has ended. */
		kthread_stop(thread->task);
		put_task_struct(thread->task);
	}
	if (thread->buffer)
		free_pages_exact(thread->buffer, thread->loop->bytes);
	kvfree(thread->mappings);
	kvfree(thread);
}

/* A thread that does not run yet, or an error pointer. */
static struct timed_thread *create_thread(struct timed_loop *loop, int number)
{
	struct timed_thread *thread;
	struct task_struct *task;

	thread = kvzalloc(sizeof(*thread), MEMORY_GFP);
	if (!thread)
		return ERR_PTR(-ENOMEM);
	thread->loop = loop;
	histogram_clear(&thread->map);
	histogram_clear(&thread->unmap);
	thread->buffer = alloc_pages_exact(loop->bytes, MEMORY_GFP | __GFP_ZERO);
	thread->mappings = kvcalloc(loop->parameters->batch,
				    sizeof(*thread->mappings), MEMORY_GFP);
	if (!thread->buffer || !thread->mappings) {
		destroy_thread(thread);
		return ERR_PTR(-ENOMEM);
	}
	task = kthread_create(thread_main, thread, "umbra_dma_hold/%d", number);
	if (IS_ERR(task)) {
		destroy_thread(thread);
		return ERR_CAST(task);
	}
	get_task_struct(task);
	thread->task = task;
	return thread;
}

static void destroy_threads(struct timed_loop *loop)
{
	u64 i;

	for (i = 0; i < loop->parameters->threads; i++)
		destroy_thread(loop->threads[i]);
	kfree(loop->threads);
}

static int create_threads(struct timed_loop *loop)
{
	struct timed_thread *thread;
	u64 i;

	loop->threads = kcalloc(loop->parameters->threads,
				sizeof(*loop->threads), GFP_KERNEL);
	if (!loop->threads)
		return -ENOMEM;
	for (i = 0; i < loop->parameters->threads; i++) {
		thread = create_thread(loop, i);
		if (IS_ERR(thread)) {
			destroy_threads(loop);
			return PTR_ERR(thread);
		}
		loop->threads[i] = thread;
	}
	return 0;
}

static void collect(const struct timed_loop *loop, u64 start_ns,
		    struct timed_result *result)
{
	const struct timed_thread *thread;
	u64 i;

	result->parameters = *loop->parameters;
	result->operations = 0;
	result->map_errors = 0;
	result->elapsed_ns = 0;
	histogram_clear(&result->map);
	histogram_clear(&result->unmap);
	for (i = 0; i < loop->parameters->threads; i++) {
		thread = loop->threads[i];
		result->operations += thread->operations;
		result->map_errors += thread->map_errors;
		result->elapsed_ns = max(result->elapsed_ns,
					 thread->end_ns - start_ns);
		histogram_add(&result->map, &thread->map);
		histogram_add(&result->unmap, &thread->unmap);
	}
}

int timed_run(struct hold_device *hold, struct timed_result *result)
{
	const struct hold_parameters *parameters = &hold->parameters;
	struct timed_loop loop = {
		.hold = hold,
		.parameters = parameters,
		.bytes = parameters->pages * PAGE_SIZE,
		.deadline_ns = U64_MAX,
		.running = ATOMIC_INIT(parameters->threads),
	};
	u64 start_ns, i;
	int ret;

	ret = create_threads(&loop);
	if (ret)
		return ret;

	start_ns = ktime_get_ns();
	if (parameters->seconds)
		loop.deadline_ns = start_ns +
				   parameters->seconds * NSEC_PER_SEC;
	for (i = 0; i < parameters->threads; i++)
		wake_up_process(loop.threads[i]->task);

	wait_event_interruptible(hold->wait, !atomic_read(&loop.running) ||
				 READ_ONCE(hold->leaving));
	if (atomic_read(&loop.running))
		ret = -EINTR;
	else
		collect(&loop, start_ns, result);
	destroy_threads(&loop);
	return ret;
}
