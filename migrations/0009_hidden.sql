-- In the search index what is private says so: `prv`, and as before `own` with its owner's id and `col` with its
-- collection's (R30). What is public says nothing, for of that there is more, and a search for frequent words
-- read the list of it from end to end. Rows of public images keep their words until they are written again.
UPDATE search SET scope = 'prv ' || scope WHERE scope NOT LIKE 'pub %';
