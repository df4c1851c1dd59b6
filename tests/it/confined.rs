//! A test in a process of its own, so that an abort, a hang and the memory it takes are seen from outside.
use std::{
    env,
    process::{Command, exit},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Names the test that a child is to run itself.
const INSIDE: &str = "DIPTYCH_CONFINED_TEST";
/// Address space of a child: what is allocated by mistake must not take the machine along.
const ADDRESS_SPACE_KIBIBYTES: u64 = 12 << 20;
/// A case that takes longer hangs: the slowest takes seconds on a busy machine.
const LONGEST_CASE: Duration = Duration::from_secs(120);

/// Which case is under way.
pub(crate) struct Cases {
    current: Mutex<(Instant, String)>,
}

impl Cases {
    /// Says what comes now; the last line of a child that aborts.
    pub(crate) fn now(&self, case: &str) {
        eprintln!("case {case}");
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), case.to_owned());
    }

    fn watch(&self) {
        loop {
            thread::sleep(Duration::from_secs(1));
            let (since, case) = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if since.elapsed() > LONGEST_CASE {
                eprintln!("hangs since {:?}: {case}", since.elapsed());
                exit(101);
            }
        }
    }
}

/// Runs `body` in a child that runs nothing but `test` (its full name), and wants of it success and at most
/// `peak_megabytes` of resident memory, those of the test binary included.
pub(crate) fn confined(test: &str, peak_megabytes: u64, body: impl FnOnce(&Cases)) {
    if env::var(INSIDE).as_deref() == Ok(test) {
        let cases = Arc::new(Cases { current: Mutex::new((Instant::now(), "before the first".to_owned())) });
        let watched = Arc::clone(&cases);
        thread::spawn(move || watched.watch());
        body(&cases);
        let peak = diptych::run::memory::peak_bytes().expect("Linux tells") >> 20;
        println!("peak memory {peak} MB");
        assert!(peak <= peak_megabytes, "took {peak} MB of memory, more than {peak_megabytes}");
        return;
    }
    let limited = format!("ulimit -v {ADDRESS_SPACE_KIBIBYTES}; exec \"$0\" \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &limited])
        .arg(env::current_exe().expect("this binary"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, test)
        .output()
        .expect("a shell");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let tail: Vec<&str> = err.lines().rev().take(30).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    assert!(output.status.success(), "{}\n{out}\n{}", output.status, tail.join("\n"));
    assert!(out.contains("1 passed"), "the child ran no test: {out}");
    out.lines().filter(|line| line.starts_with("peak") || line.starts_with("note")).for_each(|line| println!("{line}"));
}

/// How many cases: `variable` of the environment, or else `ordinary`.
pub(crate) fn count(variable: &str, ordinary: u64) -> u64 {
    match env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is {text}; give a number")),
        Err(_) => ordinary,
    }
}
