//! How long it takes to decide. `cargo bench -p coral-webhook`.

mod objects;

use std::hint::black_box;

use coral_webhook::mutate::{Options, mutate};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::Value;

fn decide(criterion: &mut Criterion) {
    let mut unasked = objects::deployment();
    unasked["metadata"]["annotations"] = Value::Null;
    let cases = [
        ("deployment of 20 containers", objects::deployment()),
        ("bare pod", objects::pod()),
        ("deployment without annotations", unasked),
    ];
    let options = Options::default();
    let mut group = criterion.benchmark_group("mutate");
    for (name, object) in &cases {
        group.bench_function(*name, |bencher| {
            bencher.iter(|| mutate(black_box(object), black_box(&options)));
        });
    }
    group.finish();
}

criterion_group!(benches, decide);
criterion_main!(benches);
