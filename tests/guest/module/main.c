// SPDX-License-Identifier: GPL-2.0-or-later

#include <linux/debugfs.h>
#include <linux/dma-mapping.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>

#include "hold.h"

#define ADDRESS_BITS	48

static struct dentry *root_folder;

static int hold_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct hold_device *hold;
	int ret;

	hold = kvzalloc(sizeof(*hold), GFP_KERNEL);
	if (!hold)
		return -ENOMEM;
	hold->device = &pdev->dev;
	mutex_init(&hold->lock);
	init_waitqueue_head(&hold->wait);
	hold->original_mask = dma_get_mask(&pdev->dev);
	hold->original_coherent_mask = pdev->dev.coherent_dma_mask;

	ret = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(ADDRESS_BITS));
	if (ret) {
		dev_err(&pdev->dev, "no DMA with %d address bits: error %d\n",
			ADDRESS_BITS, ret);
		kvfree(hold);
		return ret;
	}
	pci_set_drvdata(pdev, hold);
	control_create(hold, root_folder);
	return 0;
}

static void hold_remove(struct pci_dev *pdev)
{
	struct hold_device *hold = pci_get_drvdata(pdev);

	control_remove(hold);
	dma_set_mask(&pdev->dev, hold->original_mask);
	dma_set_coherent_mask(&pdev->dev, hold->original_coherent_mask);
	kvfree(hold);
}

/* Without an id table only driver_override binds a device. */
static struct pci_driver hold_driver = {
	.name = KBUILD_MODNAME,
	.probe = hold_probe,
	.remove = hold_remove,
};

static int __init hold_init(void)
{
	int ret;

	root_folder = debugfs_create_dir(KBUILD_MODNAME, NULL);
	ret = pci_register_driver(&hold_driver);
	if (ret)
		debugfs_remove(root_folder);
	return ret;
}

static void __exit hold_exit(void)
{
	pci_unregister_driver(&hold_driver);
	debugfs_remove(root_folder);
}

module_init(hold_init);
module_exit(hold_exit);

MODULE_DESCRIPTION("Times DMA map and unmap beside pages that stay mapped");
MODULE_AUTHOR("The Umbra project");
MODULE_LICENSE("GPL");
