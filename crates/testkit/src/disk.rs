//! File systems that a test has for itself: an image whose content can be copied as a power loss would
//! leave it, and one that is small enough to fill up. Both need root.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

const PREFIX: &str = "tally-disk-";
/// In a disk's own directory: where it is mounted.
const MOUNTED_AT: &str = "mounted-at";
/// Takes up room on a full disk.
const BALLAST: &str = "ballast";
/// A disk whose owner stands still is soon idle; if not, something else writes to it.
const COPIES_MAX: usize = 50;

/// A mounted file system. Unmounted when dropped.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
    /// The image of an ext4 file system; `None` for one in memory.
    image: Option<PathBuf>,
    /// Holds images, and says where the disk is mounted to whoever clears up after a killed test.
    own: TempDir,
}

impl Disk {
    /// Can this machine have disks of a test's own?
    ///
    /// # Errors
    /// Says what is missing.
    pub fn possible() -> Result<()> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "mounting needs root, this is user {}",
            rustix::process::geteuid().as_raw()
        );
        run("mkfs.ext4", &["-V"])?;
        run("losetup", &["--find"])?;
        let probe = tempfile::tempdir()?;
        drop(Self::small(probe.path(), 64)?);
        Ok(())
    }

    /// An ext4 file system of so many MiB in an image file, mounted at `at`, which is made.
    ///
    /// # Errors
    /// When it cannot be made or mounted.
    pub fn image(at: &Path, mib: u64) -> Result<Self> {
        let own = own_directory(at)?;
        let image = own.path().join("0");
        File::create(&image)?.set_len(mib << 20)?;
        // Nothing is left to be written later, so that an idle disk is idle.
        let whole = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
        run("mkfs.ext4", &["-q", "-F", "-E", whole, text(&image)?])?;
        let disk = Self {
            at: at.to_owned(),
            image: Some(image),
            own,
        };
        disk.mount()?;
        Ok(disk)
    }

    /// A file system in memory with room for so many KiB, mounted at `at`, which is made.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn small(at: &Path, kib: u64) -> Result<Self> {
        let own = own_directory(at)?;
        let size = format!("size={kib}k");
        run(
            "mount",
            &["-t", "tmpfs", "-o", &size, "tally-disk", text(at)?],
        )?;
        Ok(Self {
            at: at.to_owned(),
            image: None,
            own,
        })
    }

    fn mount(&self) -> Result<()> {
        let image = self.image.as_deref().context("no image")?;
        run("mount", &["-o", "loop", text(image)?, text(&self.at)?])
    }

    /// Copies the image as it is now: what the file system has written to the block device, and none of
    /// what it still keeps in memory. The copy is of one moment: it is made again when the device was
    /// written to meanwhile.
    ///
    /// # Errors
    /// When it cannot be copied, or the device never comes to rest.
    pub fn copy(&self) -> Result<Copy> {
        let image = self.image.as_deref().context("no image")?;
        let device = self.device()?;
        // No file is mounted twice: whoever took a copy of the mounts, as `ip netns exec` does, keeps the
        // old device alive, and what is mounted from the same file would be what that one remembers.
        let number = image.file_name().and_then(|name| name.to_str());
        let number: u32 = number.context("an image without a name")?.parse()?;
        let copy = self.own.path().join((number + 1).to_string());
        for _ in 0..COPIES_MAX {
            let before = Activity::of(&device)?;
            run("cp", &["--sparse=always", text(image)?, text(&copy)?])?;
            let after = Activity::of(&device)?;
            if before == after && after.under_way == 0 {
                return Ok(Copy(copy));
            }
        }
        bail!("{device} is written to all the time, although its user stands still")
    }

    /// Puts a copy in the place of what is mounted: what the machine finds when power is back. Nobody
    /// has a file of the disk open.
    ///
    /// # Errors
    /// When the disk is in use, or the copy cannot be mounted.
    pub fn replace(&mut self, copy: Copy) -> Result<()> {
        run("umount", &[text(&self.at)?])?;
        let before = self.image.replace(copy.0);
        fs::remove_file(before.context("no image")?)?;
        self.mount()
    }

    /// Fills the disk up to a rest of at most so many KiB.
    ///
    /// # Errors
    /// When it cannot be written, for another reason than that it is full.
    pub fn fill(&self, rest_kib: u64) -> Result<()> {
        let mut ballast = File::options()
            .create(true)
            .append(true)
            .open(self.at.join(BALLAST))?;
        let block = [0xa5; 4 << 10];
        while self.free_kib()? > rest_kib {
            if let Err(error) = ballast.write_all(&block) {
                ensure!(
                    error.kind() == std::io::ErrorKind::StorageFull,
                    "filling the disk: {error}"
                );
                break;
            }
        }
        Ok(())
    }

    /// Removes what [`Disk::fill`] has put there.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.at.join(BALLAST))?)
    }

    fn free_kib(&self) -> Result<u64> {
        let found = rustix::fs::statvfs(&self.at)?;
        Ok((found.f_bavail * found.f_frsize) >> 10)
    }

    /// The loop device's name, such as `loop3`.
    fn device(&self) -> Result<String> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let at = text(&self.at)?;
        let source = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ');
            let source = fields.next()?;
            (fields.next()? == at).then(|| source.trim_start_matches("/dev/").to_owned())
        });
        source.with_context(|| format!("{at} is not mounted"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.at);
        // Its path tells where, should the directory stay.
        let _ = fs::remove_file(self.own.path().join(MOUNTED_AT));
    }
}

/// The content of a disk at one moment.
#[derive(Debug)]
pub struct Copy(PathBuf);

/// What a block device has done and is doing.
#[derive(Debug, PartialEq, Eq)]
struct Activity {
    writes: u64,
    sectors_written: u64,
    under_way: u64,
}

impl Activity {
    fn of(device: &str) -> Result<Self> {
        let path = format!("/sys/block/{device}/stat");
        let stat = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let numbers = stat.split_whitespace().map(str::parse);
        let numbers: Vec<u64> = numbers.collect::<Result<_, _>>()?;
        // Documentation/block/stat.rst of Linux.
        let field = |number: usize| numbers.get(number).copied().context("too few fields");
        Ok(Self {
            writes: field(4)?,
            sectors_written: field(6)?,
            under_way: field(8)?,
        })
    }
}

/// Makes the mount point and the disk's own directory, after clearing up behind tests that were killed.
fn own_directory(at: &Path) -> Result<TempDir> {
    clear_up();
    fs::create_dir_all(at)?;
    let own = tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", std::process::id()))
        .tempdir()?;
    fs::write(own.path().join(MOUNTED_AT), text(at)?)?;
    Ok(own)
}

/// Unmounts and removes what processes that are gone have left. Best effort: what cannot be removed now
/// is somebody else's, or is removed the next time.
fn clear_up() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            if let Ok(at) = fs::read_to_string(entry.path().join(MOUNTED_AT)) {
                unmount(Path::new(&at));
            }
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// At once if nobody uses it, otherwise as soon as nobody does: a test that failed may drop its disks
/// before its processes.
fn unmount(at: &Path) {
    let Ok(at) = text(at) else { return };
    if run("umount", &[at]).is_err() {
        let _ = run("umount", &["--lazy", at]);
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is no text", path.display()))
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("running {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lacking::lacking;

    /// An empty directory, or `None` where there can be no disks.
    fn place() -> Result<Option<TempDir>> {
        match Disk::possible() {
            Ok(()) => Ok(Some(tempfile::tempdir()?)),
            Err(why) => {
                lacking("a disk of a test's own", &why)?;
                Ok(None)
            }
        }
    }

    #[test]
    fn a_copy_has_what_was_synced_and_not_what_was_only_written() -> Result<()> {
        let Some(place) = place()? else { return Ok(()) };
        let at = place.path().join("disk");
        let mut disk = Disk::image(&at, 32)?;
        let mut synced = File::create(at.join("synced"))?;
        synced.write_all(b"kept")?;
        synced.sync_all()?;
        File::open(&at)?.sync_all()?;
        fs::write(at.join("written"), b"lost")?;
        let copy = disk.copy()?;
        drop(synced);
        disk.replace(copy)?;
        assert_eq!(fs::read(at.join("synced"))?, b"kept");
        assert!(!at.join("written").exists());
        Ok(())
    }

    #[test]
    fn a_copy_is_what_is_read_also_when_others_still_see_an_earlier_disk() -> Result<()> {
        let Some(place) = place()? else { return Ok(()) };
        let at = place.path().join("disk");
        let mut disk = Disk::image(&at, 32)?;
        let mut other = Command::new("unshare")
            .args(["--mount", "--propagation", "slave", "sleep", "60"])
            .spawn()?;
        for round in 0..4 {
            let text = format!("round {round}");
            let mut file = File::create(at.join("file"))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            File::open(&at)?.sync_all()?;
            let copy = disk.copy()?;
            drop(file);
            disk.replace(copy)?;
            assert_eq!(fs::read_to_string(at.join("file"))?, text);
        }
        other.kill()?;
        other.wait()?;
        Ok(())
    }

    #[test]
    fn a_small_disk_is_full_until_there_is_room() -> Result<()> {
        let Some(place) = place()? else { return Ok(()) };
        let disk = Disk::small(place.path(), 1_024)?;
        disk.fill(16)?;
        let error = fs::write(place.path().join("more"), vec![1; 64 << 10]);
        let kind = error.err().map(|error| error.kind());
        assert_eq!(kind, Some(std::io::ErrorKind::StorageFull));
        disk.make_room()?;
        fs::write(place.path().join("more"), vec![1; 64 << 10])?;
        Ok(())
    }
}
