/**
 * The matrix of test/protocol/roles.ts, by hand: one row for a route, seven columns for what stands in the
 * way, thirteen letters for who asks, in this order:
 *
 * a stranger without a token, a stranger with one, reader, contributor, owner, member of a team that
 * contributes, former member of it, staff, administrator, robot (contributor, its token bound to the
 * collection), a revoked and an expired token of the owner, a CI job of another issuer (contributor).
 *
 * 2: 200 to 204, M: mounted (201), P: 206, 1: 401, 3: 403, 4: 404, 9: 409, L: 429, 5: 501; = is as for
 * `public`. What follows a # is a way to ask on a route (test/protocol/access.ts). All people's tokens
 * carry every scope; those of robot and job carry pull and push. For what is absent there is no
 * collection that the job's rule could name, so its token opens nothing.
 */
export const ROLES_TABLE = `
route                                       public        private       absent        frozen        read-only     over quota    limit reached
GET /pks/lookup                             2222222222112 =             4444444444111 =             =             =             =
POST /pks/add                               1222222223113 =             1222222223111 =             1333333333113 =             =
GET /assets/config/config.prod.json         2222222222222 =             =             =             =             =             =
GET /version                                2222222222222 =             =             =             =             =             =
GET /.well-known/jwks.json                  2222222222222 =             =             =             =             =             =
GET /v1/token-status                        4222222222442 =             4222222222444 =             =             =             =
GET /v1/rbac/users/current                  1222222222112 =             1222222222111 =             =             =             =
GET /v1/oci-redirect                        4444444444444 =             =             =             =             =             =
POST /v1/build                              5555555555555 =             =             =             =             =             =
POST /v1/build-context                      5555555555555 =             =             =             =             =             =
GET /v1/entities                            2222222222112 =             2222222222111 =             =             =             =
POST /v1/entities                           1333233223113 =             1333333223111 =             1333333333113 =             =
GET /v1/entities/*                          2222222222112 4422224222112 4444444444111 =             =             =             =
POST /v1/collections                        1333233223113 1433234223113 1444444444111 =             1333333333113 =             =
GET /v1/collections/*                       2222222222112 4422224222112 4444444444111 =             =             =             =
DELETE /v1/collections/*                    1333233223113 1433234223113 1444444443111 1333333333113 1333333333113 =             =
POST /v1/containers                         1332223222112 1432224222112 1444444444111 =             1333333333113 =             =
GET /v1/containers/*                        2222222222112 4422224222112 4444444444111 =             =             =             =
DELETE /v1/containers/*                     1333233223113 1433234223113 1444444443111 1333333333113 1333333333113 =             =
POST /v1/images                             1332223222112 1432224222112 1444444444111 =             1333333333113 =             =
GET /v1/images/*                            2222222222112 4422224222112 4444444444111 =             =             =             =
DELETE /v1/images/*                         1333233223113 1433234223113 1444444443111 1333333333113 1333333333113 =             =
GET /v1/tags/:id                            2222222222112 4422224222112 4444444444111 =             =             =             =
POST /v1/tags/:id                           1332223222112 1432224222112 1444444444111 =             1333333333113 =             =
GET /v2/tags/:id                            2222222222112 4422224222112 4444444444111 =             =             =             =
POST /v2/tags/:id                           1332223222112 1432224222112 1444444444111 =             1333333333113 =             =
GET /v1/search                              2222222222112 =             2222222222111 =             =             =             =
GET /v1/imagefile/*                         2222222222112 4422224222112 4444444444111 =             =             =             LLL222L222112
POST /v1/imagefile/*                        1332223222112 1432224222112 1444444444111 =             1333333333113 1333333333113 =
POST /v2/imagefile/:id                      1332223222112 1432224222112 1444444444111 =             1333333333113 1333333333113 =
PUT /v2/imagefile/:id/_complete             1339293999119 1439294999119 1444444444111 =             1333333333113 1339393999119 =
POST /v2/imagefile/:id/_multipart           1332223222112 1432224222112 1444444444111 =             1333333333113 1333333333113 =
PUT /v2/imagefile/:id/_multipart            1444244444114 =             1444444444111 =             =             =             =
PUT /v2/imagefile/:id/_multipart_complete   1444244444114 =             1444444444111 =             1444344444114 1444344444114 =
PUT /v2/imagefile/:id/_multipart_abort      1444244444114 =             1444444444111 =             1444344444114 =             =
GET /v2                                     1222222222112 =             1222222222111 =             =             =             =
GET /v2/token                               2222222222112 =             2222222222111 =             =             =             =
GET /v2/_catalog                            2222222222112 =             2222222222111 =             =             =             =
POST /v2/:name{.+}/blobs/uploads            1332223222112 =             1333333223111 =             1333333333113 =             =
POST /v2/:name{.+}/blobs/uploads#whole      1332223222112 =             1333333223111 =             1333333333113 1333333333113 =
POST /v2/:name{.+}/blobs/uploads#readable   133MMM3MMM11M =             1333333MM3111 =             1333333333113 1333333333113 =
POST /v2/:name{.+}/blobs/uploads#anywhere   133MMM3MMM11M =             1333333MM3111 =             1333333333113 1333333333113 =
POST /v2/:name{.+}/blobs/uploads#private    1332223MM2112 =             1333333MM3111 =             1333333333113 1332223332112 =
POST /v2/:name{.+}/blobs/uploads#absent     1332223222112 =             1333333223111 =             1333333333113 =             =
GET /v2/:name{.+}/blobs/uploads/:id         1444244444114 =             1444444444111 =             1444344444114 =             =
PATCH /v2/:name{.+}/blobs/uploads/:id       1444244444114 =             1444444444111 =             1444344444114 1444344444114 =
PUT /v2/:name{.+}/blobs/uploads/:id         1444244444114 =             1444444444111 =             1444344444114 1444344444114 =
DELETE /v2/:name{.+}/blobs/uploads/:id      1444244444114 =             1444444444111 =             1444344444114 =             =
GET /v2/:name{.+}/blobs/:digest             2222222222112 1422224222112 1444444444111 =             =             =             =
HEAD /v2/:name{.+}/blobs/:digest            2222222222112 1422224222112 1444444444111 =             =             =             =
DELETE /v2/:name{.+}/blobs/:digest          1333233223113 1433234223113 1444444443111 =             1333333333113 =             =
GET /v2/:name{.+}/manifests/:reference      2222222222112 1422224222112 1444444444111 =             =             =             LLL222L222112
GET /v2/:name{.+}/manifests/:reference#hash 2222222222112 1422224222112 1444444444111 =             =             =             LLL222L222112
HEAD /v2/:name{.+}/manifests/:reference     2222222222112 1422224222112 1444444444111 =             =             =             =
HEAD /v2/:name{.+}/manifests/:reference#hash 2222222222112 1422224222112 1444444444111 =             =             =             =
PUT /v2/:name{.+}/manifests/:reference      1332223222112 =             1333333223111 =             1333333333113 =             =
PUT /v2/:name{.+}/manifests/:reference#hash 1332223222112 =             1333333223111 =             1333333333113 =             =
PUT /v2/:name{.+}/manifests/:reference#move 1332223222112 =             1333333223111 1333333333113 1333333333113 =             =
DELETE /v2/:name{.+}/manifests/:reference   1333233223113 1433234223113 1444444443111 1333333333113 1333333333113 =             =
DELETE /v2/:name{.+}/manifests/:reference#hash 1333233223113 1433234223113 1444444443111 1333333333113 1333333333113 =             =
GET /v2/:name{.+}/tags/list                 2222222222112 1422224222112 1444444444111 =             =             =             =
GET /v2/:name{.+}/referrers/:digest         2222222222112 1222222222112 1222222222111 =             =             =             =
GET /share                                  2222222222222 =             4444444444444 =             =             =             =
GET /v1/blob                                PPPPPPPPPPPPP =             3333333333333 =             =             =             =
PUT /v1/blob                                2222222222222 =             3333333333333 =             =             =             =
PUT /v1/part                                2222222222222 =             3333333333333 =             =             =             =
GET /v1/users                               1333333323113 =             1333333323111 =             =             =             =
POST /v1/users                              1333333323113 =             1333333323111 =             =             =             =
GET /v1/users/:name                         1444244424114 =             1444444444111 =             =             =             =
PATCH /v1/users/:name                       1333333323113 =             1333333343111 =             =             =             =
DELETE /v1/users/:name                      1333333393113 =             1333333343111 =             =             =             =
GET /v1/users/:name/tokens                  1444244424114 =             1444444444111 =             =             =             =
GET /v1/tokens                              1222222223113 =             1222222222111 =             =             =             =
POST /v1/tokens                             1444244423113 =             1444444443111 =             =             =             =
DELETE /v1/tokens/:id                       1444444444114 =             1444444444111 =             =             =             =
GET /v1/robots                              1222222223113 =             1222222222111 =             =             =             =
POST /v1/robots                             1222222223113 =             1222222223111 =             =             =             =
DELETE /v1/robots/:name                     1444444443113 =             1444444443111 =             =             =             =
POST /v1/transfers                          1333933393113 1433934393113 1444444443111 =             =             =             =
PUT /v1/privacy                             1333233223113 1433234223113 1444444443111 =             =             =             =
GET /v1/policy                              2222222222112 4422224222112 4444444444111 =             =             =             =
PUT /v1/policy                              1333233223113 1433234223113 1444444443111 =             =             =             =
GET /v1/usage                               1333233223113 1433234223113 1444444444111 =             =             =             =
PUT /v1/quota                               1333333323113 1433334323113 1444444443111 =             =             =             =
GET /v1/stats                               2222222222112 4422224222112 4444444444111 =             =             =             =
GET /v1/stars                               1222222222112 =             1222222222111 =             =             =             =
PUT /v1/stars                               1222222222112 1422224222112 1444444444111 =             1333333333113 =             =
DELETE /v1/stars                            1222222222112 1422224222112 1444444444111 =             1333333333113 =             =
GET /v1/shares                              1222222223113 1422224223113 1444444444111 =             =             =             =
POST /v1/shares                             1332223223113 1432224223113 1444444444111 =             1333333333113 =             =
DELETE /v1/shares/:id                       1444244223113 =             1444444444111 =             =             =             =
GET /v1/audit                               1333333323113 =             1333333323111 =             =             =             =
POST /v1/first-admin                        3333333333333 =             =             =             =             =             =
GET /v1/grants                              1333233223113 1433234223113 1444444443111 =             =             =             =
PUT /v1/grants                              1333233223113 1433234223113 1444444443111 =             =             =             =
PUT /v1/frozen                              1333233223113 1433234223113 1444444443111 =             =             =             =
GET /v1/teams                               1222222222112 =             1222222222111 =             =             =             =
POST /v1/teams                              1222222223113 =             1222222223111 =             =             =             =
GET /v1/teams/:name                         1444444444114 =             1444444444111 =             =             =             =
PATCH /v1/teams/:name                       1444444443113 =             1444444443111 =             =             =             =
DELETE /v1/teams/:name                      1444444443113 =             1444444443111 =             =             =             =
PUT /v1/teams/:name/members/:user           1444444443113 =             1444444443111 =             =             =             =
DELETE /v1/teams/:name/members/:user        1444444443113 =             1444444443111 =             =             =             =
POST /v1/teams/:name/join                   1444444444114 =             1444444444111 =             =             =             =
GET /v1/teams/:name/invitations             1444444443113 =             1444444443111 =             =             =             =
POST /v1/teams/:name/invitations            1444444443113 =             1444444443111 =             =             =             =
DELETE /v1/teams/:name/invitations/:id      1444444443113 =             1444444443111 =             =             =             =
POST /v1/invitations                        1444444443113 =             1444444443111 =             =             =             =
GET /v1/keys                                1222222222112 =             1222222222111 =             =             =             =
GET /v1/keys/:fingerprint                   2222222222112 =             4444444444111 =             =             =             =
DELETE /v1/keys/:fingerprint                1333233323113 =             1444444444111 =             1333333333113 =             =
POST /v1/keys/:fingerprint/challenge        1222222223113 =             1444444443111 =             1333333333113 =             =
POST /v1/keys/:fingerprint/claim            1222222223113 =             1444444443111 =             1333333333113 =             =
POST /v1/exports                            1333333323113 =             1333333323111 =             =             =             =
GET /v1/exports/rows                        1333333323113 =             1333333323111 =             =             =             =
GET /v1/exports/blobs/:digest               1333333343113 =             1333333343111 =             =             =             =
GET /v1/imports                             1333333323113 =             1333333323111 =             =             =             =
POST /v1/imports                            1333333323113 =             1333333323111 =             =             =             =
POST /v1/imports/:id                        1333333393113 =             1333333393111 =             =             =             =
DELETE /v1/imports/:id                      1333333323113 =             1333333323111 =             =             =             =
POST /v1/imports/:id/rows                   1333333393113 =             1333333393111 =             =             =             =
POST /v1/imports/:id/blobs/:digest          1333333393113 =             1333333393111 =             =             =             =
PUT /v1/imports/:id/blobs/:digest           1333333343113 =             1333333343111 =             =             =             =
POST /v1/imports/:id/blobs/:digest/parts    1333333343113 =             1333333343111 =             =             =             =
PUT /v1/imports/:id/blobs/:digest/parts/:part 1333333343113 =             1333333343111 =             =             =             =
GET /api/container/:collection/:name        4444444444444 =             =             =             =             =             =
GET /:entity/api/container/:collection/:name 2222222222222 4444444444444 4444444444444 =             =             =             =
GET /                                       2222222222112 =             2222222222111 =             =             =             =
GET /auth/tokens                            2222222222222 =             =             =             =             =             =
GET /library/:entity/:collection/:container 2222222222222 =             =             =             =             =             =
GET /openapi.json                           2222222222222 =             =             =             =             =             =
GET /docs                                   2222222222222 =             =             =             =             =             =
GET /docs/:file                             2222222222222 =             =             =             =             =             =
GET /healthz                                2222222222222 =             =             =             =             =             =
GET /readyz                                 2222222222222 =             =             =             =             =             =
`
