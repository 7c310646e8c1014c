"""Measurements that compare two things in one run; each prints a table and can write what it measured."""
