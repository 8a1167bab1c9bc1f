# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the initramfs images of the guest and of the testbed host (L1). Same input, same bytes.

    guest          busybox, fio, dma_map_benchmark, the test module of the stock kernel, tests/guest/program/,
                   tests/guest/image/{common,guest}
    testbed host   busybox, QEMU with its libraries and firmware, tests/guest/image/{common,host}

A launcher appends further cpio archives to these (umbra.building.cpio), for instance the guest's own kernel and initrd
or modules of another kernel: a later archive's file replaces an earlier one's.
"""

import dataclasses
import io
import os
import re
import subprocess
from pathlib import Path

from umbra import cache, progress
from umbra.building import cpio, fio, kernel, packages, qemu
from umbra.building.environment import environment
from umbra.building.kernel_config import KernelOptions
from umbra.building.kernel_image import KernelProduct
from umbra.building.qemu import QemuOptions, QemuProduct
from umbra.errors import ExitCode, UserError
from umbra.project import TREE

OVERLAYS = TREE / "tests" / "guest" / "image"
PROGRAMS = TREE / "tests" / "guest" / "program"
BUSYBOX = Path("/bin/busybox")
# What QEMU loads for q35 with a kernel given on the command line. Each is searched for in both folders.
_FIRMWARE_FOLDERS = (Path("/usr/share/seabios"), Path("/usr/share/qemu"))
_FIRMWARE = ("bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin", "pvh.bin", "vgabios-stdvga.bin")
_RECIPE = 3
_COMPILE = ("gcc", "-std=gnu11", "-O2", "-static", "-s")
_ZSTD = ("zstd", "-10", "-T1", "--no-progress", "-q", "-c")


@dataclasses.dataclass(frozen=True)
class ImageOptions:
    offline: bool = False
    update: bool = False


@dataclasses.dataclass(frozen=True)
class Images:
    """`guest_initrd` holds the modules of `kernel`, the stock one."""
    guest_initrd: Path
    host_initrd: Path
    kernel: Path

    def guest_initrd_for(self, linux: KernelProduct | None, folder: Path) -> Path:
        """The guest's image for a kernel; None stands for one that nothing here has built.

        For another kernel than the stock one, it is written to `folder`/initrd: the guest's image, then an archive
        with that kernel's modules in place of the stock ones.
        """
        if linux is None or linux.folder == self.kernel:
            return self.guest_initrd
        base = self.guest_initrd.read_bytes()
        target = folder / "initrd"
        with open(target, "wb") as out:
            out.write(base)
            writer = cpio.Writer(out, len(base))
            for parent in ("lib", "lib/modules", "lib/modules/umbra"):
                writer.directory(parent)
            for module in linux.modules:
                writer.file(f"lib/modules/umbra/{module.name}", module.read_bytes())
            writer.finish()
        return target


class Tree:
    """Files of an image by path. Writes them sorted, with their parent folders, so the order of adding is no input."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, int]] = {}
        self._links: dict[str, str] = {}
        self._folders: dict[str, int] = {}

    def add(self, path: str, data: bytes, mode: int = 0o644) -> None:
        self._files[path.strip("/")] = (data, mode)

    def add_file(self, path: str, source: Path) -> None:
        try:
            self.add(path, source.read_bytes(), 0o755 if source.stat().st_mode & 0o111 else 0o644)
        except OSError as error:
            raise UserError(ExitCode.ENVIRONMENT, f"The image needs {source}: {error.strerror}.") from None

    def add_folder(self, path: str, mode: int = 0o755) -> None:
        self._folders[path.strip("/")] = mode

    def add_program(self, path: str, program: Path) -> None:
        """A program and every library that the dynamic linker loads for it."""
        self.add_file(path, program)
        for library in libraries_of(program):
            self.add_file(str(library), library)

    def overlay(self, folder: Path) -> None:
        """Everything below a folder of the project; contents and the executable bit count, nothing else."""
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink():
                self._links[name] = os.readlink(path)
            elif path.is_dir():
                self.add_folder(name)
            elif path.name not in (".gitkeep", ".gitignore"):
                self.add_file(name, path)

    def archive(self) -> bytes:
        folders = dict(self._folders)
        for path in [*self._files, *self._links, *self._folders]:
            for parent in list(Path(path).parents)[:-1]:
                folders.setdefault(parent.as_posix(), 0o755)
        folders.setdefault("dev", 0o755)
        out = io.BytesIO()
        writer = cpio.Writer(out)
        for path in sorted(folders):
            writer.directory(path, folders[path])
        # The kernel opens /dev/console for process 1 before that can mount anything.
        writer.char_device("dev/console", 5, 1, 0o600)
        writer.char_device("dev/null", 1, 3, 0o666)
        for path in sorted(self._links):
            writer.symlink(path, self._links[path])
        for path in sorted(self._files):
            data, mode = self._files[path]
            writer.file(path, data, mode)
        writer.finish()
        return out.getvalue()


def libraries_of(program: Path) -> list[Path]:
    """What ldd finds for a program, by the paths under which the dynamic linker looks; none if it is static."""
    reply = subprocess.run(["ldd", program], capture_output=True, text=True, check=False,
                           env=environment(LC_ALL="C"))
    missing = re.findall(r"^\s*(\S+) => not found", reply.stdout, re.MULTILINE)
    if missing:
        raise UserError(ExitCode.ENVIRONMENT, f"{program} needs libraries that are not installed: {' '.join(missing)}.")
    return sorted(Path(match) for match in re.findall(r"(?:^\s*|=> )(/\S+) \(0x", reply.stdout, re.MULTILINE))


def compress(archive: bytes) -> bytes:
    """zstd: the kernel unpacks it several times faster than gzip, which counts under emulation."""
    return subprocess.run(_ZSTD, input=archive, capture_output=True, check=True).stdout


def _overlays(role: str) -> list[Path]:
    return [OVERLAYS / "common", OVERLAYS / role]


def compile_programs(folder: Path) -> list[Path]:
    """The guest's own programs, one C file each. Static: the image has no C library."""
    programs = []
    for source in sorted(PROGRAMS.glob("*.c")):
        programs.append(folder / source.stem)
        done = subprocess.run([*_COMPILE, "-o", programs[-1], source], capture_output=True, text=True, check=False,
                              env=environment())
        if done.returncode != 0:
            raise UserError(ExitCode.ENVIRONMENT, f"{source.name} does not compile: {done.stderr.strip()}.",
                            "The C library's static half is in Debian's libc6-dev.")
    return programs


def guest_tree(linux: KernelProduct, fio_program: Path, programs: list[Path]) -> Tree:
    tree = Tree()
    tree.add_file("bin/busybox", BUSYBOX)
    tree.add_program("usr/bin/fio", fio_program)
    # The agents say which versions they have, and starting these programs takes long under emulation.
    tree.add("usr/lib/umbra/fio-version", f"{fio.version_of(fio_program)}\n".encode())
    if linux.benchmark.exists():
        tree.add_file("usr/bin/dma_map_benchmark", linux.benchmark)
    for program in programs:
        tree.add_file(f"usr/bin/{program.name}", program)
    for module in linux.modules:
        tree.add_file(f"lib/modules/umbra/{module.name}", module)
    for folder in _overlays("guest"):
        tree.overlay(folder)
    return tree


def host_tree(emulator: QemuProduct, scratch: Path) -> Tree:
    tree = Tree()
    tree.add_file("bin/busybox", BUSYBOX)
    tree.add("usr/lib/umbra/qemu-version", f"{qemu.version_of(emulator.src)}\n".encode())
    # Debug information is three quarters of the binary, and the testbed host holds the image in its memory.
    stripped = scratch / "qemu-system-x86_64"
    subprocess.run(["strip", "-o", stripped, emulator.binary], check=True)
    tree.add_program("usr/bin/qemu-system-x86_64", stripped)
    for name in _FIRMWARE:
        for folder in _FIRMWARE_FOLDERS:
            if (folder / name).exists():
                tree.add_file(f"{folder}/{name}", folder / name)
    for folder in _overlays("host"):
        tree.overlay(folder)
    return tree


def _key(emulator: QemuProduct, linux: KernelProduct, fio_program: Path) -> str:
    """Key of all that goes into the images; the machine's own files count by size and time."""
    machine = [BUSYBOX, *libraries_of(emulator.binary)]
    machine += [folder / name for folder in _FIRMWARE_FOLDERS for name in _FIRMWARE]
    stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in machine if path.exists()]
    return cache.key_of(recipe=_RECIPE, compressor=_ZSTD, compiler=_COMPILE, machine=stamps,
                        kernel=linux.folder, fio=fio_program, qemu=emulator.binary,
                        qemu_built=emulator.binary.stat().st_mtime_ns, kernel_built=linux.bzimage.stat().st_mtime_ns,
                        programs=cache.hash_of_tree(PROGRAMS) if PROGRAMS.is_dir() else "",
                        overlays=cache.hash_of_tree(OVERLAYS) if OVERLAYS.is_dir() else "")


def find() -> Images | None:
    """The images if they, and what they are made of, are built; builds and fetches nothing."""
    emulator = qemu.find(QemuOptions.from_environment())
    linux = kernel.find(KernelOptions())
    fio_program = fio.find()
    if emulator is None or linux is None or fio_program is None or not BUSYBOX.exists():
        return None
    return _at(cache.root() / "images" / _key(emulator, linux, fio_program), linux)


def _at(folder: Path, linux: KernelProduct) -> Images | None:
    images = Images(folder / "guest.img", folder / "host.img", linux.folder)
    return images if images.guest_initrd.exists() else None


def ensure(options: ImageOptions) -> Images:
    """The images, built if they are not there yet, after QEMU and the stock kernel."""
    packages.ensure((*packages.IMAGES, *packages.FIRMWARE), options.offline)
    emulator = qemu.ensure(QemuOptions.from_environment(offline=options.offline, update=options.update))
    linux = kernel.ensure(KernelOptions(offline=options.offline, update=options.update))
    fio_program = fio.ensure(options.offline)
    folder = cache.root() / "images" / _key(emulator, linux, fio_program)
    with cache.lock("images"):
        if _at(folder, linux) is None:
            cache.need_space(0.2, "Building the images")
            with cache.new_folder(folder) as new:
                with progress.Display("Building the guest's image"):
                    programs = compile_programs(new)
                    (new / "guest.img").write_bytes(compress(guest_tree(linux, fio_program, programs).archive()))
                    for program in programs:
                        program.unlink()
                with progress.Display("Building the testbed host's image"):
                    (new / "host.img").write_bytes(compress(host_tree(emulator, new).archive()))
                    (new / "qemu-system-x86_64").unlink()
    return Images(folder / "guest.img", folder / "host.img", linux.folder)
