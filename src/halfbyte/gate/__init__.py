"""Model intake: is this checkpoint what a policy allows, before its weights are trusted or even downloaded?"""
