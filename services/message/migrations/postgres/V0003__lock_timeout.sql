-- Well below the age that the queue of a lane may reach: who waits behind the batch that meets a locked head is not refused.
ALTER FUNCTION append_events SET lock_timeout = '100ms';
