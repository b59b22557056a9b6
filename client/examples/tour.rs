//! A tour of the library: write and read, change many things at once or nothing, count without a lock, be told.
//!
//! `cargo run -p nacre-client --example tour -- FOLDER POOL MONITOR...` with the folder of a client's identity (a local
//! cluster's is `var/NAME/admin`) and where the monitors listen. The tests run it.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use nacre_client::{Cluster, Compare, Error, Object, Op, OpError, OpResult, Settings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(folder), Some(pool)) = (args.next(), args.next()) else {
        return Err("usage: tour FOLDER POOL MONITOR...".into());
    };
    let mut settings = Settings::of_folder(Path::new(&folder), args)?;
    // A call waits while the cluster cannot answer: for so long, then it is an error. None: for ever.
    settings.patience = Some(Duration::from_secs(30));
    let cluster = Cluster::connect(settings).await?;
    let pool = cluster.pool(&pool).await?.namespace("tour");

    // Bytes.
    let page = pool.object("page");
    page.write_full("a pearl grows").await?;
    page.append(" around a grain").await?;
    page.write(2, "PEARL").await?;
    println!("read      {}", String::from_utf8_lossy(&page.read(0, 100).await?));

    // Several changes at once, if the object is as expected: all of them, or none and the place that failed.
    let sign = |who: &'static str| {
        vec![
            Op::CompareXattr { name: "owner".into(), how: Compare::Eq, value: Bytes::new() },
            Op::SetXattr { name: "owner".into(), value: who.into() },
            Op::Append { data: Bytes::from(format!(", signed {who}")) },
        ]
    };
    page.execute(sign("anna")).await?;
    match page.execute(sign("ben")).await {
        Err(Error::Object { source: OpError::Guard { at }, .. }) => println!("guarded   operation {at} said no to ben"),
        other => return Err(format!("two owners: {other:?}").into()),
    }

    // Eight who count at once, without a lock: whoever was overtaken looks again.
    let counter = pool.object("counter");
    counter.omap_set(vec![("n".into(), "0".into())]).await?;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        clients.spawn(count(counter.clone()));
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    println!("counted   {}", String::from_utf8_lossy(&counted(&counter).await?));

    // To be told, and to know that one was heard.
    let bell = pool.object("bell");
    bell.write_full("").await?;
    let mut watch = bell.watch(Duration::from_secs(30)).await?;
    let ringer = tokio::spawn(async move { bell.notify("dinner", Duration::from_secs(10)).await });
    let heard = watch.next().await?;
    println!("heard     {}", String::from_utf8_lossy(&heard.payload));
    heard.answer("coming").await?;
    println!("answers   {}", ringer.await??.answers.len());
    watch.end().await?;

    // What there is, and away with it.
    let mut names = Vec::new();
    let mut listing = pool.list();
    while let Some(some) = listing.next().await? {
        names.extend(some);
    }
    names.sort();
    println!("listed    {}", names.iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>().join(" "));
    for name in names {
        pool.object(name).remove().await?;
    }
    Ok(())
}

async fn counted(counter: &Object) -> Result<Bytes, Error> {
    let (pairs, _more) = counter.omap(None, 1).await?;
    Ok(pairs.into_iter().next().map(|(_, n)| n).unwrap_or_default())
}

/// Adds ten, one at a time.
async fn count(counter: Object) -> Result<(), Error> {
    for _ in 0..10 {
        loop {
            let now = counted(&counter).await?;
            let next = String::from_utf8_lossy(&now).parse::<u32>().unwrap_or(0) + 1;
            let step = vec![
                Op::CompareOmap { key: "n".into(), how: Compare::Eq, value: now },
                Op::OmapSet { entries: vec![("n".into(), next.to_string().into())] },
            ];
            match counter.execute(step).await {
                Ok(done) if done.results.iter().all(|result| matches!(result, OpResult::Done)) => break,
                Ok(_) | Err(Error::Object { source: OpError::Guard { .. }, .. }) => {}
                Err(other) => return Err(other),
            }
        }
    }
    Ok(())
}
