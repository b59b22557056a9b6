//! What the driver is told, against bytes written by hand; what it answers, from a line that plays the kernel.

use std::collections::VecDeque;
use std::os::fd::AsFd as _;

use rustix::io::Errno;

use super::*;

/// Answers from a list, and keeps what was asked.
#[derive(Default)]
struct Played {
    asked: Vec<Vec<u8>>,
    answers: VecDeque<Vec<u8>>,
}

impl Line for &mut Played {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.asked.push(datagram.to_vec());
        Ok(())
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        self.answers.pop_front().ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }
}

/// The end of a request.
fn ended(sequence: u32, errno: i32) -> Vec<u8> {
    let mut out = 36u32.to_ne_bytes().to_vec();
    out.extend(2u16.to_ne_bytes());
    out.extend([0, 0]);
    out.extend(sequence.to_ne_bytes());
    out.extend([0; 4]);
    out.extend((-errno).to_ne_bytes());
    out.resize(36, 0);
    out
}

impl Played {
    /// The family is known, as number 27.
    fn new() -> Played {
        let mut played = Played::default();
        let mut value = Attributes::default().text(FAMILY_NAME, NAME).u32(FAMILY_NUMBER, 27);
        // The number is one of 16 bits.
        let bytes = request(FAMILIES, 1, 1, &std::mem::take(&mut value));
        let mut bytes = bytes[..bytes.len() - 8].to_vec();
        bytes.extend(6u16.to_ne_bytes());
        bytes.extend(FAMILY_NUMBER.to_ne_bytes());
        bytes.extend(27u16.to_ne_bytes());
        bytes.extend([0, 0]);
        played.answers.push_back([bytes, ended(1, 0)].concat());
        played
    }

    fn answer(&mut self, command: u8, attributes: &Attributes) {
        // The answer and the end may come apart.
        self.answers.push_back(request(27, 2, command, attributes));
        self.answers.push_back(ended(2, 0));
    }
}

fn shape(size: u64) -> Shape {
    Shape { tag: "nacre:p/a:/run/map/0".into(), size, flags: 0x0d6d, grace: Duration::from_secs(600) }
}

#[cfg(target_endian = "little")]
#[test]
fn the_driver_is_told_what_its_header_says() {
    let socket = std::fs::File::open("/dev/null").unwrap();
    let fd = u8::try_from(socket.as_raw_fd()).unwrap();
    let mut played = Played::new();
    played.answer(command::CONNECT, &Attributes::default().u32(attr::INDEX, 4));
    let mut control = Control::over(&mut played).unwrap();
    assert_eq!(control.connect(None, &shape(3 << 30), socket.as_fd()).unwrap(), Device(4));
    #[rustfmt::skip]
    let family = [
        32u8, 0, 0, 0,   16, 0,   5, 0,   1, 0, 0, 0,   0, 0, 0, 0,   3, 1, 0, 0,
        8, 0, 2, 0,   b'n', b'b', b'd', 0,
    ];
    let mut family = family.to_vec();
    family[0] = family.len() as u8;
    assert_eq!(played.asked[0], family);
    #[rustfmt::skip]
    let mut bytes = [
        0, 0, 0, 0,    27, 0,   5, 0,   2, 0, 0, 0,   0, 0, 0, 0,   1, 1, 0, 0,
        12, 0, 2, 0,   0, 0, 0, 0xc0, 0, 0, 0, 0,
        12, 0, 3, 0,   0, 2, 0, 0, 0, 0, 0, 0,
        12, 0, 4, 0,   0, 0, 0, 0, 0, 0, 0, 0,
        12, 0, 5, 0,   0x6d, 0x0d, 0, 0, 0, 0, 0, 0,
        12, 0, 6, 0,   0, 0, 0, 0, 0, 0, 0, 0,
        12, 0, 8, 0,   0x58, 2, 0, 0, 0, 0, 0, 0,
        25, 0, 10, 0,
    ].to_vec();
    bytes.extend(b"nacre:p/a:/run/map/0\0\0\0\0");
    bytes.extend([16, 0, 7, 0x80, 12, 0, 1, 0x80, 8, 0, 1, 0, fd, 0, 0, 0]);
    bytes[0] = bytes.len() as u8;
    assert_eq!(played.asked[1], bytes);
}

#[test]
fn a_device_is_taken_over_resized_asked_for_and_let_go() {
    let socket = std::fs::File::open("/dev/null").unwrap();
    let asked = |act: &dyn Fn(&mut Control<&mut Played>)| {
        let mut played = Played::new();
        let item = Attributes::default().u32(attr::DEVICE_INDEX, 4).add(attr::DEVICE_CONNECTED, &[1]);
        let list = Attributes::default().nested(attr::DEVICES, &Attributes::default().nested(attr::DEVICE, &item));
        played.answer(command::STATUS, &list);
        act(&mut Control::over(&mut played).unwrap());
        let last = played.asked.pop().unwrap();
        let kinds = attributes(&last[20..]).unwrap().into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
        assert_eq!(attribute(&last[20..], attr::INDEX).and_then(u32_of), Some(4));
        (last[16], kinds)
    };
    let over = asked(&|control| control.reconnect(Device(4), &shape(1 << 20), socket.as_fd()).unwrap());
    let kinds = vec![attr::INDEX, attr::SIZE, attr::DEAD_CONN_TIMEOUT, attr::BACKEND, attr::SOCKETS];
    assert_eq!(over, (command::RECONFIGURE, kinds));
    let resized = asked(&|control| control.resize(Device(4), "nacre:p/a:/run/map/0", 2 << 20).unwrap());
    assert_eq!(resized, (command::RECONFIGURE, vec![attr::INDEX, attr::SIZE, attr::BACKEND]));
    let gone = asked(&|control| control.disconnect(Device(4)).unwrap());
    assert_eq!(gone, (command::DISCONNECT, vec![attr::INDEX]));
    let known = asked(&|control| assert!(control.is_connected(Device(4)).unwrap()));
    assert_eq!(known, (command::STATUS, vec![attr::INDEX]));
}

#[test]
fn what_the_driver_refuses_is_said_with_what_to_do() {
    let socket = std::fs::File::open("/dev/null").unwrap();
    let refused = |errno: Errno| {
        let mut played = Played::new();
        played.answers.push_back(ended(2, errno.raw_os_error()));
        let mut control = Control::over(&mut played).unwrap();
        control.connect(Some(Device(3)), &shape(1 << 20), socket.as_fd()).unwrap_err().to_string()
    };
    for (errno, said) in [
        (Errno::PERM, "only root"),
        (Errno::BUSY, "connecting nbd3 of the kernel's NBD driver"),
        (Errno::BUSY, "used by another program"),
        (Errno::NOMEM, "no free device"),
        (Errno::INVAL, "dmesg"),
    ] {
        let error = refused(errno);
        assert!(error.contains(said), "{error}");
    }
    let mut played = Played::new();
    let mut control = Control::over(&mut played).unwrap();
    let error = control.connect(None, &shape(LARGEST + 1), socket.as_fd()).unwrap_err().to_string();
    assert!(error.contains("9223372036854775808 bytes") && error.contains("nacre nbd"), "{error}");
    assert_eq!(played.asked.len(), 1, "the kernel is not asked for what it cannot do");
    // An answer that is none.
    let mut played = Played::new();
    played.answers.push_back(vec![1, 2, 3]);
    let error = Control::over(&mut played).unwrap().disconnect(Device(0)).unwrap_err().to_string();
    assert!(error.contains("makes no sense"), "{error}");
}

#[test]
fn what_is_missing_is_said() {
    let refused = |errno: Errno| {
        Err(Error::Driver { what: "asking for".into(), source: io::Error::from_raw_os_error(errno.raw_os_error()) })
    };
    let (new, with, without) = ("6.1.0-56-amd64\n", "Block devices:\n 43 nbd\n254 virtblk\n", " 43 nbdx\n");
    assert_eq!(lacks(Ok(()), new, with, true), None);
    for (asked, release, devices, root, said) in [
        (refused(Errno::NOENT), new, without, true, "modprobe nbd"),
        (refused(Errno::NOENT), new, with, true, "network namespace"),
        (refused(Errno::PERM), new, with, true, "CAP_SYS_ADMIN"),
        (Ok(()), new, with, false, "only root"),
        (Ok(()), "5.13.19", with, true, "5.14 does"),
    ] {
        let missing = lacks(asked, release, devices, root).unwrap();
        assert!(missing.contains(said), "{missing}");
    }
    // A release that cannot be read is no reason.
    assert_eq!(lacks(Ok(()), "", with, true), None);
}

#[test]
fn devices_have_names_and_numbers() {
    assert_eq!(Device::of(Path::new("/dev/nbd12")), Some(Device(12)));
    for other in ["/dev/nbd", "/dev/nbd1p1", "/dev/loop1", "nbd1"] {
        assert_eq!(Device::of(Path::new(other)), None);
    }
    assert_eq!(Device(3).path(), Path::new("/dev/nbd3"));
}

#[test]
fn the_kernel_of_this_machine_answers() {
    // What is no driver but is there in every kernel that has generic netlink at all, which a sandbox may have not.
    let Ok(line) = Netlink::open() else { return };
    let mut control = Control { line, family: FAMILIES, sequence: 40 };
    let wanted = Attributes::default().text(FAMILY_NAME, "nlctrl");
    let found = control.ask(|| "asking for".into(), FIND_FAMILY, &wanted).unwrap().unwrap();
    assert_eq!(attribute(&found, FAMILY_NUMBER).and_then(u16_of), Some(FAMILIES));
    let wanted = Attributes::default().text(FAMILY_NAME, "nacre-has-none");
    let error = control.ask(|| "asking for".into(), FIND_FAMILY, &wanted).unwrap_err();
    assert!(
        matches!(&error, Error::Driver { source, .. } if source.raw_os_error() == Some(Errno::NOENT.raw_os_error()))
    );
}
