//! A volume behind a device of the kernel's NBD driver: one socket, whose other end is served here.
//!
//! Nothing is negotiated on it: the kernel was told size and abilities when the device was connected.
//!
//! - The device outlives this process. Who maps the volume again takes it over with a new socket, and gets all requests
//!   that were not answered; whoever uses it only waits. So the volume must be one that nobody who served it before can
//!   change any more.
//! - A new socket is served only when all requests of the one before have ended: one that was sent again must not be
//!   overtaken by itself.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nacre_nbd::negotiate::{MaybeTls, transmission_flags};
use nacre_nbd::wire::Framing;
use nacre_nbd::{Limits, Negotiated, Volume, serve};
use tokio::net::UnixStream;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::driver::{self, Control, Device, Shape};
use crate::error::Error;

/// Between two attempts to give the kernel a socket, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What is to be a device, and whose.
#[derive(Clone)]
pub struct Wanted {
    /// Tells the device from all others.
    pub tag: String,
    /// How long what uses the device waits when this process dies.
    pub grace: Duration,
    /// What is behind it.
    pub volume: Arc<dyn Volume>,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wanted({})", self.tag)
    }
}

impl Wanted {
    fn shape(&self) -> Shape {
        Shape {
            tag: self.tag.clone(),
            size: self.volume.size(),
            flags: transmission_flags(&*self.volume, Framing::Simple),
            grace: self.grace,
        }
    }

    /// Gives the kernel one end of a new socket, and has the other.
    async fn hand_over(&self, device: Option<Device>) -> Result<(Device, UnixStream), Error> {
        let failed = |source| Error::Driver { what: "making a socket for".into(), source };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let shape = self.shape();
        let told = spawn_blocking(move || {
            let mut control = Control::open()?;
            match device {
                Some(device) => control.reconnect(device, &shape, theirs.as_fd()).map(|()| device),
                None => {
                    let device = control.connect(None, &shape, theirs.as_fd())?;
                    driver::look_often(device);
                    Ok(device)
                }
            }
        });
        let device = told.await.map_err(|error| failed(error.into()))??;
        Ok((device, UnixStream::from_std(ours).map_err(failed)?))
    }

    /// Serves until the kernel has no more requests on this socket, and all of them have ended.
    async fn serve(&self, stream: UnixStream) {
        let volume = Arc::clone(&self.volume);
        let stream = MaybeTls::Plain(stream);
        let agreed = Negotiated { stream, volume, framing: Framing::Simple, allocation: false };
        if let Err(error) = serve(agreed, &Limits::default()).await {
            tracing::info!(%error, "the kernel left");
        }
    }

    /// Serves until the device is no longer of this tag, or it is to go.
    async fn stay(self, device: Device, mut stream: UnixStream, leaving: Arc<AtomicBool>) -> Result<(), Error> {
        let mut pause = AGAIN.0;
        loop {
            let began = tokio::time::Instant::now();
            self.serve(stream).await;
            if leaving.load(Ordering::Acquire) {
                return Ok(());
            }
            if began.elapsed() > AGAIN.1 {
                pause = AGAIN.0;
            }
            loop {
                if driver::backing(device).as_ref() != Some(&self.tag) {
                    return Err(Error::Taken { device: device.to_string() });
                }
                // Right after the process before died, the kernel may not know yet that its socket is gone. Then it hangs
                // up on a new one.
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(AGAIN.1);
                match self.hand_over(Some(device)).await {
                    Ok((_, again)) => {
                        stream = again;
                        break;
                    }
                    Err(error) if leaving.load(Ordering::Acquire) => return Err(error),
                    Err(error) => tracing::warn!(%error, "the device has no socket"),
                }
            }
        }
    }
}

/// A volume that is a device; it answers as long as this lives.
#[derive(Debug)]
pub struct Connected {
    device: Device,
    tag: String,
    leaving: Arc<AtomicBool>,
    serving: JoinHandle<Result<(), Error>>,
}

/// Makes a device of a volume. If there is one of this tag already, whose process is gone, it is taken over, if it can be
/// written as the volume can.
pub async fn connect(wanted: Wanted) -> Result<Connected, Error> {
    let old = driver::find(&wanted.tag);
    let (device, stream) = wanted.hand_over(old).await?;
    let (tag, leaving) = (wanted.tag.clone(), Arc::new(AtomicBool::new(false)));
    let serving = tokio::spawn(wanted.stay(device, stream, Arc::clone(&leaving)));
    Ok(Connected { device, tag, leaving, serving })
}

impl Connected {
    /// The device.
    #[must_use]
    pub fn device(&self) -> PathBuf {
        self.device.path()
    }

    /// Ends when the device is another's, or none.
    pub async fn ended(&mut self) -> Result<(), Error> {
        match (&mut self.serving).await {
            Ok(ended) => ended,
            Err(error) => Err(Error::Driver { what: "serving".into(), source: error.into() }),
        }
    }

    /// What can be done with it apart from serving it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { device: self.device, tag: self.tag.clone(), leaving: Arc::clone(&self.leaving) }
    }
}

/// A device that is served elsewhere in this process.
#[derive(Clone, Debug)]
pub struct Handle {
    device: Device,
    tag: String,
    leaving: Arc<AtomicBool>,
}

impl Handle {
    /// Is it still this one's.
    #[must_use]
    pub fn is_mine(&self) -> bool {
        driver::backing(self.device).as_ref() == Some(&self.tag)
    }

    /// Tells the kernel the size.
    pub fn resize(&self, size: u64) -> Result<(), Error> {
        Control::open()?.resize(self.device, &self.tag, size)
    }

    /// Takes the device away, if nobody has it for himself: a file system, swap, another device. To be sure of that it is
    /// taken for this process alone while it goes.
    pub fn disconnect(&self, force: bool) -> Result<(), Error> {
        use rustix::fs::{Mode, OFlags};
        let path = self.device.path();
        let _alone = if force {
            None
        } else {
            let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
            let opened = rustix::fs::open(&path, flags, Mode::empty());
            Some(opened.map_err(|error| Error::system("opening", &path)(error.into()))?)
        };
        self.leaving.store(true, Ordering::Release);
        let done = Control::open().and_then(|mut control| control.disconnect(self.device));
        if done.is_err() {
            self.leaving.store(false, Ordering::Release);
        }
        done
    }
}

/// Takes away the device of a process that is gone, if there is one of this tag: what uses it gets errors.
pub fn clear(tag: &str) -> Result<(), Error> {
    match driver::find(tag) {
        Some(device) => Control::open()?.disconnect(device),
        None => Ok(()),
    }
}

/// Where the device of a tag is.
#[must_use]
pub fn find(tag: &str) -> Option<PathBuf> {
    driver::find(tag).map(Device::path)
}

/// Can the device of a tag be written.
#[must_use]
pub fn is_read_only(device: &Path) -> bool {
    let file = Path::new("/sys/block").join(device.file_name().unwrap_or_default()).join("ro");
    std::fs::read_to_string(file).is_ok_and(|text| text.trim() == "1")
}
