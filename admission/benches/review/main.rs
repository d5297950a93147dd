//! How long an answer takes, from bytes to bytes. `cargo bench -p coral-admission`.

mod objects;

use std::hint::black_box;

use coral_admission::review::review;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};

fn answer(criterion: &mut Criterion) {
    let mut unasked = objects::deployment();
    unasked["metadata"]["annotations"] = Value::Null;
    let mut group = criterion.benchmark_group("review");
    for (name, object) in [
        ("deployment of 20 containers", objects::deployment()),
        ("bare pod", objects::pod()),
        ("deployment without annotations", unasked),
    ] {
        let body = json!({
            "kind": "AdmissionReview",
            "apiVersion": "admission.k8s.io/v1",
            "request": {"uid": "0df28fbd-5f5f-11e8-bc74-36e6bb280816", "operation": "CREATE", "object": object},
        });
        let body = body.to_string().into_bytes();
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| review(black_box(&body), None)));
    }
    group.finish();
}

criterion_group!(benches, answer);
criterion_main!(benches);
