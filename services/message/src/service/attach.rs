//! Messages with files. Files are attached before the message is appended, so that the log never names a missing file.

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::{join, join_all};
use uuid::Uuid;

use super::Service;
use crate::batch::Answer;
use crate::check::Checked;
use crate::lanes::Pending;
use crate::store::of_earlier;

impl Service {
    /// Appends permitted events and answers each. Only later events in the room of a message with files wait for its
    /// files, so that each room keeps its order and other rooms continue at once.
    pub(super) async fn append_with_files(&self, permitted: Vec<Checked>) -> Vec<Answer> {
        let names_files = permitted.iter().filter(|checked| !checked.file_ids.is_empty());
        let rooms: HashSet<Uuid> = names_files.map(|checked| checked.pending.data.room).collect();
        let (waiting, free): (Vec<_>, Vec<_>) =
            permitted.into_iter().enumerate().partition(|(_, checked)| rooms.contains(&checked.pending.data.room));
        let (free_places, free): (Vec<_>, Vec<_>) =
            free.into_iter().map(|(place, checked)| (place, checked.pending)).unzip();
        let attached_and_appended = async {
            let (mut places, mut attached, mut answers) = (Vec::new(), Vec::new(), Vec::new());
            for (place, outcome) in
                join_all(waiting.into_iter().map(async |(place, checked)| (place, self.attach(checked).await))).await
            {
                match outcome {
                    Ok(pending) => {
                        places.push(place);
                        attached.push(pending);
                    }
                    Err(answer) => answers.push((place, answer)),
                }
            }
            answers.extend(places.into_iter().zip(self.lanes.append(attached).await));
            answers
        };
        let (free, mut answers) = join(self.lanes.append(free), attached_and_appended).await;
        answers.extend(free_places.into_iter().zip(free));
        answers.sort_unstable_by_key(|(place, _)| *place);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// Returns the event with its files, or its answer if the files cannot be attached.
    async fn attach(&self, Checked { mut pending, file_ids }: Checked) -> Result<Pending, Answer> {
        if file_ids.is_empty() {
            return Ok(pending);
        }
        let data = &pending.data;
        let attached = async {
            self.check_post((data.partition, data.room), data.sender).await?;
            self.files.attach(data, &file_ids).await
        };
        let refusal = match attached.await {
            Ok(files) => {
                Arc::make_mut(&mut pending.data).body.files = files;
                return Ok(pending);
            }
            Err(refusal) => refusal,
        };
        // A repeat gets the original's answer, even if its files have been deleted since.
        Err(match self.store.find(&pending.data).await {
            Ok((epoch, Some(first))) => Ok((epoch, of_earlier(first, &pending.data))),
            Ok((_, None)) => Err(refusal),
            Err(error) => Err(error),
        })
    }
}

#[cfg(test)]
mod tests;
