mod support;
use serde_json::json;
use support::fake_api::FakeApi;
#[test]
fn serve() {
    let api = FakeApi::start();
    let n: usize = std::env::var("N").unwrap().parse().unwrap();
    let images: Vec<String> = (0..20).map(|i| format!("docker.io/acme/app-{i}:v1")).collect();
    let st = |ready: usize, r: &str| json!({"observedGeneration":1,"nodes":{"desired":n,"ready":ready,"pulling":3,"failed":1},"imageCount":20,
       "images": images.iter().map(|i| json!({"image":i,"desired":n,"available":ready,"pulling":1,"failed":0})).collect::<Vec<_>>(),
       "conditions":[{"type":"Ready","status":r,"reason":"Pulling","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]});
    api.put_prefetch("big", json!({"spec":{"images":images},"status":st(0,"False")}));
    for node in 0..n {
        let spec: Vec<_> = images.iter().map(|i| json!({"image":i,"requestedBy":["shop/big"]})).collect();
        let status: Vec<_> = images.iter().enumerate().map(|(k,i)| if node==17 && k==3 {json!({"image":i,"state":"Failed","failure":{"reason":"NoSpace","message":"no space left on device","attempts":6}})} else if node==4 {json!({"image":i,"state":"Pulling","pull":{"startTime":"2026-11-21T06:20:00Z"}})} else {json!({"image":i,"state":"Present","sizeBytes":67_400_000,"digest":format!("sha256:{}","ab".repeat(32))})}).collect();
        api.put_node(&format!("ip-10-0-{}-{}.eu-central-1.compute.internal", node/256, node%256), json!({"spec":{"images":spec},"status":{"images":status}}));
    }
    std::fs::write("/tmp/many.kubeconfig", format!("apiVersion: v1\nkind: Config\ncurrent-context: d\nclusters: [{{name: d, cluster: {{server: '{}'}}}}]\nusers: []\ncontexts: [{{name: d, context: {{cluster: d, user: '', namespace: shop}}}}]\n", api.url)).unwrap();
    for i in 0..600 {
        std::thread::sleep(std::time::Duration::from_millis(500));
        if i % 4 == 0 { let r = (i*n/100).min(n); api.set_status(&st(r, if r==n && i>160 {"True"} else {"False"})); }
    }
}
