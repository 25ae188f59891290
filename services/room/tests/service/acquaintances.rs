//! Users who share a room.

use confab_common::Code;

use super::*;

on_both_stores![users_of_common_rooms_are_found];

async fn users_of_common_rooms_are_found(location: Location) {
    let (log, ada, bob, cleo) = (Log::default(), user("ada"), user("bob"), user("cleo"));
    let service = Service::start(&location, &log).await;
    let filter = async |user_id: &str, others: &[&str]| -> Result<Vec<String>, Error> {
        let other_ids = others.iter().map(|id| id.to_string()).collect();
        let request = FilterAcquaintancesRequest { user_id: user_id.into(), other_ids };
        Ok(service.client.clone().filter_acquaintances(request).await?.into_inner().other_ids)
    };
    assert_eq!(filter(&ada.id, &[&bob.id]).await.unwrap(), [""; 0]);
    let public = service.create(&ada, "Tea").await.unwrap().id;
    service.join(&bob, &public).await.unwrap();
    let private = service.create_private(&ada, "Secret").await.unwrap().id;
    service.set(&ada, &private, &cleo, Role::Member).await.unwrap();
    assert_eq!(filter(&ada.id, &[&bob.id, &bob.id]).await.unwrap(), [&*bob.id], "each once");
    assert_eq!(filter(&cleo.id, &[&bob.id, &ada.id]).await.unwrap(), [&*ada.id]);
    assert_eq!(filter(&bob.id, &[&cleo.id]).await.unwrap(), [""; 0]);
    assert_eq!(filter(&ada.id, &[]).await.unwrap(), [""; 0]);
    service.remove(&ada, &private, &cleo.id).await.unwrap();
    assert_eq!(filter(&ada.id, &[&cleo.id]).await.unwrap(), [""; 0]);

    let field = |error: Error| (error.code, error.fields[0].field.clone());
    assert_eq!(field(filter("x", &[]).await.unwrap_err()), (Code::InvalidRequest, "userId".into()));
    for wrong in [vec!["x"], vec![bob.id.as_str(); 201]] {
        assert_eq!(field(filter(&ada.id, &wrong).await.unwrap_err()), (Code::InvalidRequest, "otherIds".into()));
    }
}
