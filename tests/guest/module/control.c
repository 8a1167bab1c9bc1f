// SPDX-License-Identifier: GPL-2.0-or-later

#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/limits.h>
#include <linux/seq_file.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "hold.h"

static const char * const layout_names[] = {
	[LAYOUT_CONTIGUOUS] = "contiguous",
	[LAYOUT_SCATTERED] = "scattered",
	[LAYOUT_REVERSED] = "reversed",
};

/* A parameter that is a number. */
struct parameter {
	const char *name;
	size_t offset;		/* in struct hold_parameters */
	u64 min;
	u64 max;
	bool of_held;		/* fixed while pages are held */
};

static const struct parameter parameters[] = {
	{ "pages_mapped", offsetof(struct hold_parameters, pages_mapped),
	  0, 4194304, true },
	{ "physical_pages", offsetof(struct hold_parameters, physical_pages),
	  1, 65536, true },
	{ "pages", offsetof(struct hold_parameters, pages), 1, 512, false },
	{ "threads", offsetof(struct hold_parameters, threads), 1, 64, false },
	{ "batch", offsetof(struct hold_parameters, batch), 1, 4096, false },
	{ "operations", offsetof(struct hold_parameters, operations),
	  0, 1000000000, false },
	{ "seconds", offsetof(struct hold_parameters, seconds),
	  0, 3600, false },
};

static const struct hold_parameters defaults = {
	.pages_mapped = 4096,
	.physical_pages = 1024,
	.layout = LAYOUT_CONTIGUOUS,
	.pages = 1,
	.threads = 1,
	.batch = 1,
	.operations = 10000,
	.seconds = 0,
};

bool hold_interrupted(struct hold_device *hold)
{
	return signal_pending(current) || READ_ONCE(hold->leaving);
}

static u64 *value_of(struct hold_device *hold, const struct parameter *parameter)
{
	return (void *)&hold->parameters + parameter->offset;
}

/* The parameter that a file is named after. */
static const struct parameter *parameter_of(const struct file *file)
{
	const char *name = file->f_path.dentry->d_name.name;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(parameters); i++)
		if (!strcmp(parameters[i].name, name))
			return &parameters[i];
	return NULL;
}

/* Refuses a change of @name while pages are held. */
static int check_not_held(struct hold_device *hold, const char *name)
{
	if (!hold->holding)
		return 0;
	dev_err(hold->device, "%s cannot change while pages are held\n", name);
	return -EBUSY;
}

static ssize_t number_read(struct file *file, char __user *to, size_t count,
			   loff_t *position)
{
	struct hold_device *hold = file->private_data;
	char text[24];
	int length;

	if (mutex_lock_interruptible(&hold->lock))
		return -EINTR;
	length = scnprintf(text, sizeof(text), "%llu\n",
			   *value_of(hold, parameter_of(file)));
	mutex_unlock(&hold->lock);
	return simple_read_from_buffer(to, count, position, text, length);
}

static ssize_t number_write(struct file *file, const char __user *from,
			    size_t count, loff_t *position)
{
	struct hold_device *hold = file->private_data;
	const struct parameter *parameter = parameter_of(file);
	u64 value;
	int ret;

	ret = kstrtou64_from_user(from, count, 10, &value);
	if (ret == -EFAULT)
		return ret;
	if (ret || value < parameter->min || value > parameter->max) {
		dev_err(hold->device, "%s must be a number from %llu to %llu\n",
			parameter->name, parameter->min, parameter->max);
		return -EINVAL;
	}
	if (mutex_lock_interruptible(&hold->lock))
		return -EINTR;
	ret = parameter->of_held ? check_not_held(hold, parameter->name) : 0;
	if (!ret)
		*value_of(hold, parameter) = value;
	mutex_unlock(&hold->lock);
	return ret ?: count;
}

static const struct file_operations number_operations = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = number_read,
	.write = number_write,
};

static ssize_t layout_read(struct file *file, char __user *to, size_t count,
			   loff_t *position)
{
	struct hold_device *hold = file->private_data;
	char text[16];
	int length;

	if (mutex_lock_interruptible(&hold->lock))
		return -EINTR;
	length = scnprintf(text, sizeof(text), "%s\n",
			   layout_names[hold->parameters.layout]);
	mutex_unlock(&hold->lock);
	return simple_read_from_buffer(to, count, position, text, length);
}

static ssize_t layout_write(struct file *file, const char __user *from,
			    size_t count, loff_t *position)
{
	struct hold_device *hold = file->private_data;
	char text[16] = {};
	int layout = -EINVAL;
	int ret;

	if (count < sizeof(text)) {
		if (copy_from_user(text, from, count))
			return -EFAULT;
		layout = sysfs_match_string(layout_names, text);
	}
	if (layout < 0) {
		dev_err(hold->device,
			"layout must be contiguous, scattered or reversed\n");
		return -EINVAL;
	}
	if (mutex_lock_interruptible(&hold->lock))
		return -EINTR;
	ret = check_not_held(hold, "layout");
	if (!ret)
		hold->parameters.layout = layout;
	mutex_unlock(&hold->lock);
	return ret ?: count;
}

static const struct file_operations layout_operations = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = layout_read,
	.write = layout_write,
};

static int start_holding(struct hold_device *hold)
{
	int ret = check_not_held(hold, "hold");

	if (ret)
		return ret;
	ret = held_map(hold);
	if (ret)
		dev_err(hold->device, "cannot hold %llu pages: error %d\n",
			hold->parameters.pages_mapped, ret);
	else
		hold->holding = true;
	return ret;
}

static void stop_holding(struct hold_device *hold)
{
	if (hold->holding)
		held_unmap(hold);
	hold->holding = false;
}

static ssize_t hold_read(struct file *file, char __user *to, size_t count,
			 loff_t *position)
{
	struct hold_device *hold = file->private_data;
	char text[4];
	int length;

	if (mutex_lock_interruptible(&hold->lock))
		return -EINTR;
	length = scnprintf(text, sizeof(text), "%d\n", hold->holding);
	mutex_unlock(&hold->lock);
	return simple_read_from_buffer(to, count, position, text, length);
}

static ssize_t hold_write(struct file *file, const char __user *from,
			  size_t count, loff_t *position)
{
	struct hold_device *hold = file->private_data;
	bool wanted;
	int ret;

	ret = kstrtobool_from_user(from, count, &wanted);
	if (ret) {
		dev_err(hold->device, "hold must be 0 or 1\n");
		return ret;
	}
	if (mutex_lock_interruptible(&hold->lock))
		return -EINTR;
	if (wanted)
		ret = start_holding(hold);
	else
		stop_holding(hold);
	mutex_unlock(&hold->lock);
	return ret ?: count;
}

static const struct file_operations hold_operations = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = hold_read,
	.write = hold_write,
};

static int start_run(struct hold_device *hold)
{
	int ret;

	if (!hold->parameters.operations && !hold->parameters.seconds) {
		dev_err(hold->device, "operations and seconds are both 0: such a run would never end\n");
		return -EINVAL;
	}
	if (!hold->holding && hold->parameters.pages_mapped) {
		dev_err(hold->device, "no pages are held: write 1 to hold, or 0 to pages_mapped\n");
		return -EINVAL;
	}
	hold->has_result = false;
	ret = timed_run(hold, &hold->result);
	if (ret)
		dev_err(hold->device, "run ended: error %d\n", ret);
	else
		hold->has_result = true;
	return ret;
}

static ssize_t run_write(struct file *file, const char __user *from,
			 size_t count, loff_t *position)
{
	struct hold_device *hold = file->private_data;
	bool wanted;
	int ret;

	ret = kstrtobool_from_user(from, count, &wanted);
	if (ret || !wanted) {
		dev_err(hold->device, "run takes only 1\n");
		return ret ?: -EINVAL;
	}
	if (mutex_lock_interruptible(&hold->lock))
		return -EINTR;
	ret = start_run(hold);
	mutex_unlock(&hold->lock);
	return ret ?: count;
}

static const struct file_operations run_operations = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = run_write,
};

static void show_result(struct seq_file *seq, const struct timed_result *result)
{
	const struct hold_parameters *used = &result->parameters;

	seq_printf(seq, "{\"pages_mapped\":%llu,\"physical_pages\":%llu",
		   used->pages_mapped, used->physical_pages);
	seq_printf(seq, ",\"layout\":\"%s\",\"pages\":%llu,\"threads\":%llu",
		   layout_names[used->layout], used->pages, used->threads);
	seq_printf(seq, ",\"batch\":%llu,\"operations\":%llu",
		   used->batch, result->operations);
	seq_printf(seq, ",\"elapsed_ns\":%llu,\"map_errors\":%llu,\"map_ns\":",
		   result->elapsed_ns, result->map_errors);
	histogram_show(seq, &result->map);
	seq_puts(seq, ",\"unmap_ns\":");
	histogram_show(seq, &result->unmap);
}

static int result_show(struct seq_file *seq, void *unused)
{
	struct hold_device *hold = seq->private;
	int ret = 0;

	if (mutex_lock_interruptible(&hold->lock))
		return -EINTR;
	if (hold->has_result) {
		show_result(seq, &hold->result);
		seq_puts(seq, ",\"fill_ns\":");
		histogram_show(seq, &hold->held.latency);
		seq_puts(seq, "}\n");
	} else {
		ret = -ENODATA;
	}
	mutex_unlock(&hold->lock);
	return ret;
}
DEFINE_SHOW_ATTRIBUTE(result);

void control_create(struct hold_device *hold, struct dentry *parent)
{
	unsigned int i;

	hold->parameters = defaults;
	histogram_clear(&hold->held.latency);
	hold->folder = debugfs_create_dir(dev_name(hold->device), parent);
	for (i = 0; i < ARRAY_SIZE(parameters); i++)
		debugfs_create_file(parameters[i].name, 0600, hold->folder,
				    hold, &number_operations);
	debugfs_create_file("layout", 0600, hold->folder, hold,
			    &layout_operations);
	debugfs_create_file("hold", 0600, hold->folder, hold, &hold_operations);
	debugfs_create_file("run", 0200, hold->folder, hold, &run_operations);
	debugfs_create_file("result", 0400, hold->folder, hold, &result_fops);
}

void control_remove(struct hold_device *hold)
{
	WRITE_ONCE(hold->leaving, true);
	wake_up_all(&hold->wait);
	/* Returns when every operation on the files has ended. */
	debugfs_remove(hold->folder);
	stop_holding(hold);
}
