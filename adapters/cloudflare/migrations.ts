/**
 * The migrations this program was built with, in order: a Worker has no folder to look into. A test
 * compares the list with migrations/.
 */
export const MIGRATIONS = [
  '0001_init.sql',
  '0002_imports.sql',
  '0003_keys.sql',
  '0004_signatures.sql',
  '0005_access.sql',
  '0006_oci.sql',
  '0007_growth.sql',
  '0008_found.sql',
  '0009_hidden.sql',
] as const
