"""SCIM 2.0 at `/scim/v2`: users and groups as identity providers push them.

Lives here: the mapping between SCIM resources and members or directory groups, filters, pages,
discovery, what Okta and Entra send beside the standard (`quirks`, `managers`), and refusals in
words of ours (`complaints`).
May be imported: `api.rules`, `api.storage`, `api.web` (answers, caller). What a directory group
does to billing groups is decided in `api.rules.directory`, nowhere here.
"""
