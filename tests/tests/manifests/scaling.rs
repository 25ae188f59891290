//! The numbers of pods, and the objects that control them.

use confab_tests::manifests::Manifests;

pub fn complaints(manifests: &Manifests) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for pod in manifests.pods().iter().filter(|pod| pod.program().is_some() && pod.serves()) {
        let name = &pod.object["metadata"]["name"];
        let scaler =
            manifests.all("HorizontalPodAutoscaler").find(|scaler| scaler["spec"]["scaleTargetRef"]["name"] == *name);
        let replicas = pod.object["spec"]["replicas"].as_u64();
        let least = match scaler {
            Some(scaler) if replicas.is_none() => scaler["spec"]["minReplicas"].as_u64(),
            Some(_) => {
                wrong.push(format!("{}: each apply would undo what its autoscaler did", pod.name()));
                replicas
            }
            None => replicas,
        };
        let budget = manifests.get("PodDisruptionBudget", name.as_str().unwrap_or_default())?;
        let away = budget["spec"]["maxUnavailable"].as_u64();
        if away.is_none_or(|away| least.is_none_or(|least| away >= least)) {
            wrong.push(format!("{}: of {least:?} pods, {away:?} may be away", pod.name()));
        }
    }
    for scaler in manifests.all("HorizontalPodAutoscaler") {
        let (name, target) = (&scaler["metadata"]["name"], &scaler["spec"]["scaleTargetRef"]);
        if manifests
            .get(target["kind"].as_str().unwrap_or_default(), target["name"].as_str().unwrap_or_default())
            .is_err()
        {
            wrong.push(format!("HorizontalPodAutoscaler {name} has no target"));
        }
        let down = &scaler["spec"]["behavior"]["scaleDown"];
        let slow = down["stabilizationWindowSeconds"].as_u64() >= Some(300) && down["policies"][0]["value"] == 1;
        if !slow || down["policies"].as_array().is_none_or(|policies| policies.len() != 1) {
            wrong.push(format!("HorizontalPodAutoscaler {name} removes too many pods at once"));
        }
        let metrics = scaler["spec"]["metrics"].as_array().into_iter().flatten();
        let measured = metrics.map(|metric| {
            metric["resource"]["name"].as_str().or(metric["pods"]["metric"]["name"].as_str()).unwrap_or_default()
        });
        let measured = measured.collect::<Vec<_>>();
        if measured != ["cpu"] && !(target["name"] == "confab-gateway" && measured == ["cpu", "confab_sessions"]) {
            wrong.push(format!("HorizontalPodAutoscaler {name} uses another metric"));
        }
    }
    Ok(wrong)
}
