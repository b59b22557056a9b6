//! Counters, gauges and histograms of one process, and the page on which they are read. No global state: a registry is
//! made by the daemon and passed in. Names are `nacre_<daemon>_<what>_<unit>`; counters end in `_total`. Labels are few
//! and of few values (pool, reason, outcome), never object or group.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Series of one metric beyond this many are counted together, under the label value `other`.
pub const MOST_SERIES: usize = 1000;
/// Upper bounds of histogram buckets: 1 us, 2 us, 4 us and so on to 67 s.
const BUCKETS: usize = 27;

/// Counts up.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// What it counted.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Sets it.
    pub fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Adds, or takes away.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// What it stands at.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; BUCKETS + 1],
    nanos: AtomicU64,
}

/// How long things took.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<Buckets>);

impl Histogram {
    /// One thing took this long.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // Bucket n holds what took at most 2^n us.
        let bucket = (u64::BITS - micros.saturating_sub(1).leading_zeros()) as usize;
        self.0.counts[bucket.min(BUCKETS)].fetch_add(1, Ordering::Relaxed);
        self.0.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many things, and how long they took together.
    #[must_use]
    pub fn total(&self) -> (u64, Duration) {
        let count = self.0.counts.iter().map(|c| c.load(Ordering::Relaxed)).sum();
        (count, Duration::from_nanos(self.0.nanos.load(Ordering::Relaxed)))
    }
}

type Read = Box<dyn Fn() -> f64 + Send + Sync>;

enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
    /// Read when the page is asked for.
    Read(Read),
}

struct Family {
    kind: &'static str,
    help: &'static str,
    /// By labels as they are printed, without braces.
    series: BTreeMap<String, Series>,
}

/// All metrics of a process.
pub struct Registry {
    prefix: String,
    families: Mutex<BTreeMap<String, Family>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({} with {} metrics)", self.prefix, self.lock().len())
    }
}

fn labels_text(labels: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (key, value) in labels {
        if !text.is_empty() {
            text.push(',');
        }
        let _ = write!(text, "{key}=\"");
        for c in value.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    text
}

impl Registry {
    /// A registry of a daemon: `osd` gives names that start with `nacre_osd_`.
    #[must_use]
    pub fn new(daemon: &str) -> Arc<Registry> {
        Arc::new(Registry { prefix: format!("nacre_{daemon}"), families: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Family>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn series<T>(
        &self,
        (name, help, kind): (&str, &'static str, &'static str),
        labels: &[(&str, &str)],
        make: impl FnOnce() -> Series,
        pick: impl FnOnce(&Series) -> Option<T>,
    ) -> T
    where
        T: Default,
    {
        assert!(
            name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
            "{name} is not a metric's name"
        );
        assert!(kind != "counter" || name.ends_with("_total"), "a counter's name ends in _total: {name}");
        assert!(kind != "histogram" || name.ends_with("_seconds"), "a histogram's name ends in its unit: {name}");
        let mut families = self.lock();
        let family = families.entry(format!("{}_{name}", self.prefix)).or_insert_with(|| Family {
            kind,
            help,
            series: BTreeMap::new(),
        });
        let mut key = labels_text(labels);
        if family.series.len() >= MOST_SERIES && !family.series.contains_key(&key) {
            let other: Vec<_> = labels.iter().map(|(key, _)| (*key, "other")).collect();
            key = labels_text(&other);
        }
        // A name that is used for two kinds is a bug; the second one counts, unseen.
        pick(family.series.entry(key).or_insert_with(make)).unwrap_or_default()
    }

    /// A counter, the same one for the same name and labels.
    pub fn counter(&self, name: &str, help: &'static str, labels: &[(&str, &str)]) -> Counter {
        self.series(
            (name, help, "counter"),
            labels,
            || Series::Counter(Counter::default()),
            |s| match s {
                Series::Counter(c) => Some(c.clone()),
                _ => None,
            },
        )
    }

    /// A gauge, the same one for the same name and labels.
    pub fn gauge(&self, name: &str, help: &'static str, labels: &[(&str, &str)]) -> Gauge {
        self.series(
            (name, help, "gauge"),
            labels,
            || Series::Gauge(Gauge::default()),
            |s| match s {
                Series::Gauge(g) => Some(g.clone()),
                _ => None,
            },
        )
    }

    /// A histogram of durations, the same one for the same name and labels. Its name ends in `_seconds`.
    pub fn histogram(&self, name: &str, help: &'static str, labels: &[(&str, &str)]) -> Histogram {
        self.series(
            (name, help, "histogram"),
            labels,
            || Series::Histogram(Histogram::default()),
            |s| match s {
                Series::Histogram(h) => Some(h.clone()),
                _ => None,
            },
        )
    }

    /// A value that is read when the page is asked for. `kind` is `gauge` or `counter`.
    pub fn read(
        &self,
        name: &str,
        help: &'static str,
        kind: &'static str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        self.series::<()>((name, help, kind), &[], || Series::Read(Box::new(read)), |_| None);
    }

    /// The same with labels; one of the same name and labels is replaced.
    pub fn read_labelled(
        &self,
        (name, help, kind): (&str, &'static str, &'static str),
        labels: &[(&str, &str)],
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        self.series::<()>((name, help, kind), labels, || Series::Counter(Counter::default()), |_| None);
        let mut families = self.lock();
        let series = families.get_mut(&format!("{}_{name}", self.prefix)).map(|family| &mut family.series);
        if let Some(place) = series.and_then(|series| series.get_mut(&labels_text(labels))) {
            *place = Series::Read(Box::new(read));
        }
    }

    /// The page, in the text form Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        for (name, family) in &*self.lock() {
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {}", family.help, family.kind);
            for (labels, series) in &family.series {
                let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
                let _ = match series {
                    Series::Counter(c) => writeln!(out, "{name}{braced} {}", c.get()),
                    Series::Gauge(g) => writeln!(out, "{name}{braced} {}", g.get()),
                    Series::Read(read) => writeln!(out, "{name}{braced} {}", read()),
                    Series::Histogram(h) => render_histogram(&mut out, name, labels, h),
                };
            }
        }
        out
    }

    /// The same for the admin socket: one JSON object by name and labels.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut out = serde_json::Map::new();
        for (name, family) in &*self.lock() {
            for (labels, series) in &family.series {
                let key = if labels.is_empty() { name.clone() } else { format!("{name}{{{labels}}}") };
                let value = match series {
                    Series::Counter(c) => c.get().into(),
                    Series::Gauge(g) => g.get().into(),
                    Series::Read(read) => read().into(),
                    Series::Histogram(h) => {
                        let (count, sum) = h.total();
                        serde_json::json!({ "count": count, "sum": sum.as_secs_f64() })
                    }
                };
                out.insert(key, value);
            }
        }
        out.into()
    }

    /// Name, kind and help of every metric, for the generated reference page.
    #[must_use]
    pub fn describe(&self) -> Vec<(String, &'static str, &'static str)> {
        self.lock().iter().map(|(name, family)| (name.clone(), family.kind, family.help)).collect()
    }
}

fn render_histogram(out: &mut String, name: &str, labels: &str, h: &Histogram) -> std::fmt::Result {
    let comma = if labels.is_empty() { "" } else { "," };
    let mut below = 0u64;
    for (n, count) in h.0.counts.iter().take(BUCKETS).enumerate() {
        let here = count.load(Ordering::Relaxed);
        below += here;
        // Every fourth bound and those next to values: enough for a quantile, and a page one can read.
        if here > 0 || n % 4 == 0 {
            let bound = f64::from(1u32 << n) / 1e6;
            writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}")?;
        }
    }
    let (count, sum) = h.total();
    let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}")?;
    writeln!(out, "{name}_sum{braced} {}\n{name}_count{braced} {count}", sum.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_reads_as_prometheus_wants_it() {
        let registry = Registry::new("osd");
        registry.counter("ops_total", "Operations.", &[("kind", "re\"ad")]).add(3);
        registry.counter("ops_total", "Operations.", &[("kind", "re\"ad")]).inc();
        registry.gauge("queue_bytes", "Waiting.", &[]).set(-2);
        registry.read("uptime_seconds", "Since start.", "gauge", || 1.5);
        let h = registry.histogram("op_seconds", "Latency.", &[("kind", "w")]);
        h.observe(Duration::from_micros(1));
        h.observe(Duration::from_micros(2));
        h.observe(Duration::from_micros(3));
        h.observe(Duration::from_secs(1000));
        let page = registry.render();
        for line in [
            "# HELP nacre_osd_ops_total Operations.\n# TYPE nacre_osd_ops_total counter\nnacre_osd_ops_total{kind=\"re\\\"ad\"} 4\n",
            "# TYPE nacre_osd_queue_bytes gauge\nnacre_osd_queue_bytes -2\n",
            "nacre_osd_uptime_seconds 1.5\n",
            "nacre_osd_op_seconds_bucket{kind=\"w\",le=\"0.000001\"} 1\n",
            "nacre_osd_op_seconds_bucket{kind=\"w\",le=\"0.000002\"} 2\n",
            "nacre_osd_op_seconds_bucket{kind=\"w\",le=\"0.000004\"} 3\n",
            "nacre_osd_op_seconds_bucket{kind=\"w\",le=\"+Inf\"} 4\n",
            "nacre_osd_op_seconds_count{kind=\"w\"} 4\n",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
        assert_eq!(registry.to_json()["nacre_osd_queue_bytes"], -2);
        assert_eq!(registry.describe().len(), 4);
    }

    #[test]
    fn labels_of_too_many_values_are_counted_together() {
        let registry = Registry::new("s3");
        for n in 0..MOST_SERIES + 10 {
            registry.counter("requests_total", "Requests.", &[("who", &n.to_string())]).inc();
        }
        assert!(registry.render().contains("nacre_s3_requests_total{who=\"other\"} 10\n"));
    }
}
