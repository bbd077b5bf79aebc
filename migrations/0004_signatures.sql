-- What a collection asks of signatures (docs/signatures.md): `policy_keys` is a JSON list of upper-case
-- fingerprints, empty for those claimed by who may write there (R17).

ALTER TABLE collections ADD COLUMN policy TEXT NOT NULL DEFAULT 'off' CHECK (policy IN ('off', 'warn', 'require'));
--> statement-breakpoint
ALTER TABLE collections ADD COLUMN policy_keys TEXT NOT NULL DEFAULT '[]';
--> statement-breakpoint
ALTER TABLE guard ADD COLUMN policy_met INTEGER NOT NULL DEFAULT 1 CONSTRAINT policy_met CHECK (policy_met = 1);
--> statement-breakpoint
-- By the digest of the image: equal bytes have equal signatures. `marks` are place and revision of the
-- keys in `signers`, so that a guard sees that they are the same still; `facts` (SignatureFacts as
-- JSON) stands last, so that nobody else reads its pages. An image that is signed and has no row here
-- has not been looked at.
CREATE TABLE verdicts (
  digest TEXT PRIMARY KEY NOT NULL,
  verdict TEXT NOT NULL,
  why TEXT,
  signers TEXT NOT NULL,
  marks TEXT NOT NULL,
  facts TEXT NOT NULL
);
--> statement-breakpoint
-- Whom the signatures name, and which keys there were for each when the verdict was made: it is out of
-- date as soon as there are others.
CREATE TABLE signature_issuers (
  issuer TEXT NOT NULL,
  digest TEXT NOT NULL REFERENCES verdicts (digest) ON DELETE CASCADE,
  marks TEXT NOT NULL,
  PRIMARY KEY (issuer, digest)
);
--> statement-breakpoint
CREATE INDEX signature_issuers_digest ON signature_issuers (digest);
--> statement-breakpoint
CREATE INDEX images_signed ON images (digest) WHERE signed = 1;
